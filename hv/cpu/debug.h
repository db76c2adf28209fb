// Debug registers and single steps, as the stepper sees them. SDM 3B 18.
//
// All breakpoints and TF are exact; those on data see what the program itself reads and writes, not
// the processor's own accesses (tables, frames of interrupts). A REP instruction reports once.
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
// After an instruction that raised nothing: delivers what it met, and the trap of TF if
// `single_step` (it began with TF set), unless Cpu::trap_hold says no.
void deliver_debug_traps(Cpu& c, bool single_step);

// Some breakpoint is on data, so no access may bypass watch_data.
inline bool data_watched(const Cpu& c) {
  for (unsigned i = 0; i < 4; ++i)
    if ((c.dr7 >> (2 * i) & 3) != 0 && (c.dr7 >> (16 + 4 * i) & 1) != 0) return true;
  return false;
}
// Note in Cpu::debug_hits which breakpoints an access meets.
void watch_data(Cpu& c, uint64_t va, unsigned size, bool write);
void watch_port(Cpu& c, uint16_t port, unsigned size);
// Moves the hits into DR6, for a #DB that is delivered anyway.
void report_debug_hits(Cpu& c);

// After a load of SS: neither interrupts nor debug exceptions before the next instruction is
// through. SDM 3A 6.8.3
inline void hold_events(Cpu& c) {
  c.interrupt_shadow = true;
  c.trap_hold = TrapHold::kAll;
}

}  // namespace us::hv
