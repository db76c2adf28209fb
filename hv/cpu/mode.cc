// What the executor derives from control registers, code segment and flags.
#include "hv/cpu/flags.h"
#include "hv/cpu/mmu.h"
#include "hv/cpu/system.h"

namespace us::hv {
namespace {

uint32_t code_bits(const Cpu& c) {
  uint32_t bits = (c.cr0 & cr0::kPe) != 0 ? 0 : Mode::kReal;
  if (long_mode(c) && c.seg[kCs].is_long()) return bits | Mode::kCode64;
  if (c.seg[kCs].big()) bits |= Mode::kCode32;
  if (c.seg[kSs].big()) bits |= Mode::kStack32;
  return bits;
}

uint32_t unit_bits(const Cpu& c) {
  constexpr uint32_t kMasks = 0x1f80;  // MXCSR exception masks. SDM 1 10.2.3
  uint32_t bits = 0;
  if ((c.cr0 & (cr0::kEm | cr0::kTs)) != 0) bits |= Mode::kFpuOff | Mode::kSseOff;
  if ((c.cr4 & cr4::kOsfxsr) == 0) bits |= Mode::kSseOff;
  if ((c.mxcsr & kMasks) != kMasks) bits |= Mode::kSseTraps;
  return bits;
}

}  // namespace

void update_mode(Cpu& c) {
  c.mode.bits = (c.mode.bits & Mode::kSingle) | code_bits(c) | unit_bits(c) |
                (c.trace != nullptr ? Mode::kTrace : 0);
  update_bank(c);
}

void set_cpl(Cpu& c, uint8_t cpl) {
  c.cpl = cpl;
  update_mode(c);
}

void write_rflags(Cpu& c, uint64_t value, uint64_t mask) {
  if ((mask & flag::kArithmetic) != 0) {
    const uint64_t arithmetic = (arithmetic_flags(c) & ~mask) | (value & mask & flag::kArithmetic);
    set_arithmetic_flags(c, arithmetic);
  }
  mask &= ~(flag::kArithmetic | flag::kOne | flag::kVm);
  c.rflags_other = (c.rflags_other & ~mask) | (value & mask);
  update_bank(c);
}

}  // namespace us::hv
