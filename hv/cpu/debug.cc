#include "hv/cpu/debug.h"

#include "hv/cpu/system.h"

namespace us::hv {
namespace {

// DR7.RW: SDM 3B 18.2.4.
enum BreakOn : unsigned { kExecution = 0, kWrite = 1, kPort = 2, kReadWrite = 3 };

bool enabled(const Cpu& c, unsigned i) { return (c.dr7 >> (2 * i) & 3) != 0; }
unsigned break_on(const Cpu& c, unsigned i) { return c.dr7 >> (16 + 4 * i) & 3; }

// The breakpoint's bytes, aligned to their number, and [at, at + size) have one in common.
bool meets(const Cpu& c, unsigned i, uint64_t at, unsigned size) {
  constexpr uint64_t kLength[] = {1, 2, 8, 4};
  const uint64_t length = kLength[c.dr7 >> (18 + 4 * i) & 3];
  const uint64_t start = c.dr[i] & ~(length - 1);
  return at < start + length && start < at + size;
}

}  // namespace

bool check_instruction_breakpoint(Cpu& c) {
  const bool held_off = (c.rflags_other & flag::kRf) != 0;
  c.rflags_other &= ~flag::kRf;
  if (held_off || c.trap_hold == TrapHold::kAll) return false;
  const uint64_t linear = c.mode.is64() ? c.rip : static_cast<uint32_t>(c.seg[kCs].base + c.rip);
  uint64_t hits = 0;
  for (unsigned i = 0; i < 4; ++i)
    if (enabled(c, i) && break_on(c, i) == kExecution && c.dr[i] == linear) hits |= 1u << i;
  if (hits == 0) return false;
  if (c.intercepts.debug) {
    c.intercepts.debug_hits = hits;
    return true;
  }
  c.dr6 = (c.dr6 & ~uint64_t{0xf}) | hits;
  deliver(c, {.vector = kDebug}, c.rip);
  return true;
}

void watch_data(Cpu& c, uint64_t va, unsigned size, bool write) {
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned on = break_on(c, i);
    const bool wanted = on == kReadWrite || (on == kWrite && write);
    if (wanted && enabled(c, i) && meets(c, i, va, size)) c.debug_hits |= 1u << i;
  }
}

void watch_port(Cpu& c, uint16_t port, unsigned size) {
  if ((c.cr4 & cr4::kDe) == 0) return;
  for (unsigned i = 0; i < 4; ++i)
    if (enabled(c, i) && break_on(c, i) == kPort && meets(c, i, port, size))
      c.debug_hits |= 1u << i;
}

void report_debug_hits(Cpu& c) {
  c.dr6 = (c.dr6 & ~uint64_t{0xf}) | c.debug_hits;
  c.debug_hits = 0;
}

void deliver_debug_traps(Cpu& c, bool single_step) {
  if (c.trap_hold == TrapHold::kAll) return;
  if (c.trap_hold == TrapHold::kSingleStep) single_step = false;
  c.trap_hold = TrapHold::kNone;
  // SYSCALL with TF in its flag mask leaves no trap behind.
  const bool after_syscall =
      c.cpl == 0 && (c.rflags_other & flag::kTf) == 0 && c.rip == c.msr.lstar;
  if (after_syscall) single_step = false;
  if (!single_step && c.debug_hits == 0) return;
  if (c.intercepts.debug) {
    c.intercepts.debug_hits = c.debug_hits | (single_step ? dr6::kBs : 0);
    c.debug_hits = 0;
    return;
  }
  report_debug_hits(c);
  if (single_step) c.dr6 |= dr6::kBs;
  // The step began without RF: only a string with elements left has set it.
  const bool amid_string = (c.rflags_other & flag::kRf) != 0;
  deliver_event(c, {.vector = kDebug, .kind = EventKind::kTrap, .amid_string = amid_string}, c.rip);
}

}  // namespace us::hv
