// Debug registers and single steps, as the stepper sees them. SDM 3B 18.
//
// Instruction breakpoints and TF are exact. Data and I/O breakpoints (DR7.RW of 1, 2, 3) are
// accepted but never match.
#pragma once

#include "hv/cpu/cpu.h"

namespace us::hv {

// Something must be looked at before or after every instruction: the run loop steps.
inline bool debug_armed(const Cpu& c) {
  return (c.dr7 & 0xff) != 0 || (c.rflags_other & flag::kTf) != 0;
}
// Before the instruction at c.rip: delivers #DB and returns true if a breakpoint is set there and
// RFLAGS.RF does not hold it off. Consumes RF.
bool check_instruction_breakpoint(Cpu& c);
// After an instruction that began with TF set and raised nothing: delivers the #DB trap.
void deliver_single_step(Cpu& c);

}  // namespace us::hv
