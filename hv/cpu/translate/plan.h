// How one guest instruction is translated, decided from its decoded form alone.
#pragma once

#include "hv/cpu/insn.h"

namespace us::hv {

enum class How : uint8_t {
  kInterpret,  // by the interpreter's handler, as a lone op
  kNothing,    // has no effect (NOP, prefetches)
  kRewrite,    // the same instruction with other registers
  kLea,
  kMoveImmediate,
  kShiftImmediate,  // shifts and rotates, whose flags depend on more than the host defines
  kShiftCl,
  kMultiply,      // IMUL of two or three operands
  kMultiplyWide,  // MUL, IMUL of one operand
  kDivide,
  kBitTest,
  kBitScan,
  kByteSwap,
  kExchange,
  kCompareExchange,
  kExchangeAdd,
  kExtendAccumulator,  // CWDE CDQE CDQ CQO
  kPush,
  kPop,
  kLeave,
};

struct Plan {
  How how = How::kInterpret;
  int memory = -1;  // number of the memory operand, or -1
  bool stores = false;
  bool aligned = false;  // a misaligned memory operand faults
  bool reads_flags = false;
  bool writes_flags = false;  // all six
  bool keeps_some = false;    // writes some and keeps the others
  bool uses_xmm = false;

  // May end in a fault or in the run loop, so the flags before it must be known.
  bool may_leave() const { return how == How::kInterpret || how == How::kDivide || memory >= 0; }
};

Plan plan_of(const Insn& in, const Op& op);

// The general register behind operand i.
unsigned gpr_of(const Insn& in, unsigned i);

}  // namespace us::hv
