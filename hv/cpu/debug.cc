#include "hv/cpu/debug.h"

#include "hv/cpu/system.h"

namespace us::hv {

bool check_instruction_breakpoint(Cpu& c) {
  const bool held_off = (c.rflags_other & flag::kRf) != 0;
  c.rflags_other &= ~flag::kRf;
  if (held_off) return false;
  const uint64_t linear = c.mode.is64() ? c.rip : static_cast<uint32_t>(c.seg[kCs].base + c.rip);
  uint64_t hits = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const bool enabled = (c.dr7 >> (2 * i) & 3) != 0;
    const bool on_execution = (c.dr7 >> (16 + 4 * i) & 3) == 0;
    if (enabled && on_execution && c.dr[i] == linear) hits |= uint64_t{1} << i;
  }
  if (hits == 0) return false;
  c.dr6 = (c.dr6 & ~uint64_t{0xf}) | hits;
  deliver(c, {.vector = kDebug}, c.rip);
  return true;
}

void deliver_single_step(Cpu& c) {
  // SYSCALL with TF in its flag mask leaves no trap behind.
  const bool after_syscall =
      c.cpl == 0 && (c.rflags_other & flag::kTf) == 0 && c.rip == c.msr.lstar;
  if (after_syscall) return;
  c.dr6 |= dr6::kBs;
  deliver_event(c, {.vector = kDebug, .kind = EventKind::kTrap}, c.rip);
}

}  // namespace us::hv
