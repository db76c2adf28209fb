// Puts a vCPU into the state a loaded kernel expects.
#pragma once

#include "hv/boot/boot_state.h"
#include "hv/cpu/soft_vcpu.h"

namespace us::hv {

void enter_boot_state(SoftVcpu& vcpu, const BootState& state);

}  // namespace us::hv
