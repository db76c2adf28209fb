// Sign extensions of the accumulator, single flags, LAHF and SAHF, hints that do nothing; and
// select_integer itself.
#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

// CBW, CWDE, CDQE.
template <class To, class From>
const Op* widen_accumulator(Cpu& c, const Op* op) {
  const auto low = static_cast<From>(c.regs[kRax]);
  set_reg<std::make_unsigned_t<To>>(c, kRax, static_cast<std::make_unsigned_t<To>>(To{low}));
  US_NEXT(c, op);
}
// CWD, CDQ, CQO.
template <class T>
const Op* sign_into_rdx(Cpu& c, const Op* op) {
  const auto value = static_cast<std::make_signed_t<T>>(c.regs[kRax]);
  set_reg<T>(c, kRdx, static_cast<T>(value >> (kBits<T> - 1)));
  US_NEXT(c, op);
}

const Op* clear_carry(Cpu& c, const Op* op) {
  set_cf(c, false);
  US_NEXT(c, op);
}
const Op* set_carry(Cpu& c, const Op* op) {
  set_cf(c, true);
  US_NEXT(c, op);
}
// Both bits flip together, so OF, their difference, stays.
const Op* complement_carry(Cpu& c, const Op* op) {
  c.flag_aux ^= kAuxCarry | kAuxCarryIn;
  US_NEXT(c, op);
}
const Op* clear_direction(Cpu& c, const Op* op) {
  c.rflags_other &= ~flag::kDf;
  US_NEXT(c, op);
}
const Op* set_direction(Cpu& c, const Op* op) {
  c.rflags_other |= flag::kDf;
  US_NEXT(c, op);
}

constexpr uint64_t kAhFlags = flag::kSf | flag::kZf | flag::kAf | flag::kPf | flag::kCf;
const Op* flags_to_ah(Cpu& c, const Op* op) {
  const uint64_t flags = (arithmetic_flags(c) & kAhFlags) | flag::kOne;
  set_reg<uint8_t>(c, 1, static_cast<uint8_t>(flags));
  US_NEXT(c, op);
}
const Op* ah_to_flags(Cpu& c, const Op* op) {
  const uint64_t ah = get_reg<uint8_t>(c, 1);
  set_arithmetic_flags(c, (ah & kAhFlags) | (of(c) ? flag::kOf : 0));
  US_NEXT(c, op);
}

Selection pure(Handler fn) { return {.fn = fn, .pure = true}; }

}  // namespace

Selection select_misc(const Insn& in, Op&) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_CBW: return pure(&widen_accumulator<int16_t, int8_t>);
    case ZYDIS_MNEMONIC_CWDE: return pure(&widen_accumulator<int32_t, int16_t>);
    case ZYDIS_MNEMONIC_CDQE: return pure(&widen_accumulator<int64_t, int32_t>);
    case ZYDIS_MNEMONIC_CWD: return pure(&sign_into_rdx<uint16_t>);
    case ZYDIS_MNEMONIC_CDQ: return pure(&sign_into_rdx<uint32_t>);
    case ZYDIS_MNEMONIC_CQO: return pure(&sign_into_rdx<uint64_t>);
    case ZYDIS_MNEMONIC_CLC: return pure(&clear_carry);
    case ZYDIS_MNEMONIC_STC: return pure(&set_carry);
    case ZYDIS_MNEMONIC_CMC: return pure(&complement_carry);
    case ZYDIS_MNEMONIC_CLD: return pure(&clear_direction);
    case ZYDIS_MNEMONIC_STD: return pure(&set_direction);
    case ZYDIS_MNEMONIC_LAHF: return pure(&flags_to_ah);
    case ZYDIS_MNEMONIC_SAHF: return pure(&ah_to_flags);
    case ZYDIS_MNEMONIC_PAUSE:
      if (in.raw.raw.rex.B != 0) return {};  // that one exchanges R8 (select_exchange)
      [[fallthrough]];
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1: return pure(&nothing_op);
    default: return {};
  }
}

Selection select_integer(const Insn& in, Op& op) {
  using Selector = Selection (*)(const Insn&, Op&);
  static constexpr Selector kParts[] = {select_move,     select_alu,      select_condition,
                                        select_shift,    select_misc,     select_bits,
                                        select_multiply, select_exchange, select_legacy};
  for (const Selector part : kParts) {
    const Selection selection = part(in, op);
    if (selection.fn != nullptr) return selection;
  }
  return {};
}

}  // namespace us::hv
