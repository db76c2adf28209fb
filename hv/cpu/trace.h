// What the executor tells the modelled Intel PT, when it is on (Mode::kTrace).
#pragma once

#include <cstdint>

#include "hv/cpu/cpu.h"

namespace us::hv {

// Defined in trace.cc over ipt::PacketWriter. No-ops when no writer is attached.
void trace_conditional(Cpu& c, bool taken);    // Jcc, JCXZ, LOOP: one TNT bit
void trace_indirect(Cpu& c, uint64_t target);  // RET, JMP/CALL through a register or memory: TIP
void trace_far(Cpu& c, uint64_t target);       // IRET, SYSCALL, SYSRET, far transfers: TIP
void trace_async(Cpu& c, uint64_t from, uint64_t to);  // interrupts, exceptions: FUP and TIP

}  // namespace us::hv
