// Puts a vCPU into the state a loaded kernel expects.
#pragma once

#include "hv/boot/boot_state.h"
#include "hv/core/vcpu.h"

namespace us::hv {

void enter_boot_state(Vcpu& vcpu, const BootState& state);

}  // namespace us::hv
