// x87 state as a whole, shared by the control instructions and FXSAVE, XSAVE.
#pragma once

#include "hv/cpu/x87_state.h"

namespace us::hv::x87 {

// As FLDCW does: reserved bits are fixed, ES follows the masks.
void set_control(X87State& f, uint16_t value);
// FNINIT. The registers keep their contents, all become empty.
void initialize(X87State& f);

bool wait(Cpu& c, const Op& op);  // FWAIT

// FXSAVE, FXRSTOR, XSAVE, XRSTOR; bit 3 of Op::extra: with REX.W.
constexpr uint8_t kWidePointers = 8;
bool fxsave(Cpu& c, const Op& op);
bool fxrstor(Cpu& c, const Op& op);  // may change Cpu::mode: ends its block
bool xsave(Cpu& c, const Op& op);
bool xrstor(Cpu& c, const Op& op);  // may change Cpu::mode: ends its block

}  // namespace us::hv::x87
