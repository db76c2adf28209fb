// Pushes and pops as calls, returns and PUSH-like instructions need them: flat in 64-bit mode,
// through SS with the stack pointer's width (SS.B) elsewhere. SDM 1 6.2.
#pragma once

#include <cstdint>

#include "hv/cpu/handler.h"

namespace us::hv {

// ~0 in 64-bit mode, else 32 or 16 ones: the bits of RSP that take part.
inline uint64_t stack_mask(const Cpu& c) {
  if (c.mode.is64()) return ~uint64_t{0};
  return (c.mode.bits & Mode::kStack32) ? 0xffff'ffff : 0xffff;
}

// The stack pointer within that width; writing keeps bits that do not take part at 16 bits and
// clears them at 32.
inline uint64_t stack_pointer(const Cpu& c) { return c.regs[kRsp] & stack_mask(c); }
inline void set_stack_pointer(Cpu& c, uint64_t sp) {
  const uint64_t mask = stack_mask(c);
  const uint64_t kept = mask == 0xffff ? c.regs[kRsp] & ~mask : 0;
  c.regs[kRsp] = kept | (sp & mask);
}

// The linear address of `size` bytes at offset `sp` of the stack; not ok: #SS(0) was recorded.
Address stack_address(Cpu& c, uint64_t sp, unsigned size, Access access);

// Stores the low `size` bytes (2, 4, 8) of `value` below the stack pointer and moves it; false: a
// fault or needs_step was recorded and nothing was done.
[[nodiscard]] bool push_value(Cpu& c, uint64_t value, unsigned size);

// Loads `size` bytes (zero-extended) and moves the stack pointer; false: nothing was done.
[[nodiscard]] bool pop_value(Cpu& c, uint64_t& value, unsigned size);

}  // namespace us::hv
