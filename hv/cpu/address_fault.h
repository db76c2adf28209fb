// Which fault a data address that is not canonical raises: #SS if it was formed through SS, else
// #GP. SDM 1 3.3.7.1. Handlers of the flat form do not look at segments, so the memory layer says
// #GP for all of them; only faults pay for finding out.
#pragma once

#include "hv/cpu/cpu.h"

namespace us::hv {

// Turns the recorded #GP(0) of the instruction at c.rip into #SS(0) where that is due.
void refine_address_fault(Cpu& c);

}  // namespace us::hv
