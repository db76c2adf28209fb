// What the executor tells the modelled Intel PT while it is on (Mode::kTrace, Cpu::trace).
//
// Addresses in the trace are linear (CPUID.14H:ECX[31] set): outside 64-bit mode they hold CS's
// base, so that code can be found by them whatever the segments are.
#pragma once

#include <cstdint>

#include "hv/cpu/cpu.h"
#include "ipt/packet_writer.h"

namespace us::hv {

inline uint64_t linear_ip(const Cpu& c, uint64_t rip) {
  return c.mode.is64() ? rip : static_cast<uint32_t>(c.seg[kCs].base + rip);
}

// MODE.Exec of the code segment in force. SDM 3C 35.4.2.8.
inline uint8_t exec_mode(const Cpu& c) {
  return c.mode.is64() ? ipt::kExecLong : c.mode.is32() ? ipt::kExecD : uint8_t{0};
}

// --- In handlers of traced blocks; c.trace is there.

// Jcc, JCXZ, LOOP: one TNT bit.
inline void trace_conditional(Cpu& c, bool taken) { c.trace->conditional(taken); }
// RET, JMP and CALL through a register or memory: a TIP.
inline void trace_indirect64(Cpu& c, uint64_t target) { c.trace->indirect(target); }
inline void trace_indirect(Cpu& c, uint64_t target) { c.trace->indirect(linear_ip(c, target)); }

// --- Elsewhere; no-ops when tracing is off. The transfer is complete: c.rip and CS are the new
// ones.

// IRET, SYSCALL, SYSRET, far transfers, INT n: a TIP.
void trace_far(Cpu& c);
// Interrupts and exceptions: FUP and TIP. `from`: linear address of the instruction they struck.
void trace_async(Cpu& c, uint64_t from);
// CR3 was written: PIP.
void trace_cr3(Cpu& c);

}  // namespace us::hv
