// The guest's MXCSR on the host. While blocks run, the host's MXCSR holds the guest's control bits
// (rounding, DAZ, FTZ) and its sticky flags, with every exception masked; so SSE handlers compute
// with the host's own instructions. Cpu::mxcsr keeps the guest's masks all the time, its sticky
// flags only outside blocks. SDM 1 10.2.3.
#pragma once

#include <cstdint>

#include "hv/cpu/cpu.h"

namespace us::hv {

constexpr uint32_t kMxcsrFlags = 0x3f;
constexpr uint32_t kMxcsrMasks = 0x1f80;
// Bits software may set (DAZ is offered): SDM 1 11.6.6.
constexpr uint32_t kMxcsrWritable = 0xffff;

// Around running blocks: load the guest's MXCSR; merge its sticky flags back and restore the
// host's.
void enter_guest_sse(Cpu& c);
void leave_guest_sse(Cpu& c);

// MXCSR with its sticky flags, inside and outside blocks: what STMXCSR and FXSAVE store.
uint32_t guest_mxcsr(const Cpu& c);
// What LDMXCSR and FXRSTOR load; `value` has no bit outside kMxcsrWritable. Recomputes the mode, so
// an instruction that does this ends its block.
void set_guest_mxcsr(Cpu& c, uint32_t value);

}  // namespace us::hv
