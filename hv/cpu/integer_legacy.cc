// What 64-bit mode dropped: decimal and ASCII adjustments, BOUND, SALC. Undefined flags: AAA and
// AAS leave SF, ZF, PF as AL gives them and clear OF; AAM, AAD, DAA and DAS clear OF (and CF and AF
// where undefined). SDM 2A "AAA" to "BOUND", 2B "DAA".
#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

uint8_t al(const Cpu& c) { return get_reg<uint8_t>(c, 0); }
uint16_t ax(const Cpu& c) { return get_reg<uint16_t>(c, kRax); }

// AAA (add) and AAS: a low digit above 9 carries into AH.
template <bool kAdd>
bool ascii_adjust(Cpu& c, const Op&) {
  const bool carry = (al(c) & 0xf) > 9 || af(c);
  uint16_t value = ax(c);
  if (carry) value = static_cast<uint16_t>(kAdd ? value + 0x106 : value - 0x106);
  value &= 0xff0f;
  set_reg<uint16_t>(c, kRax, value);
  set_flags_parts<uint8_t>(c, al(c), carry, false, carry);
  return true;
}

bool ascii_after_multiply(Cpu& c, const Op& op) {
  const auto base = static_cast<uint8_t>(op.imm);
  if (base == 0) return raise(c, kDivideError);
  const uint8_t value = al(c);
  set_reg<uint16_t>(c, kRax, static_cast<uint16_t>((value / base) << 8 | value % base));
  set_flags_logic<uint8_t>(c, al(c));
  return true;
}
bool ascii_before_divide(Cpu& c, const Op& op) {
  const unsigned value = ax(c);
  const auto result = static_cast<uint8_t>((value >> 8) * (op.imm & 0xff) + value);
  set_reg<uint16_t>(c, kRax, result);
  set_flags_logic<uint8_t>(c, result);
  return true;
}

template <bool kAdd>
bool decimal_adjust(Cpu& c, const Op&) {
  const uint8_t old = al(c);
  const bool old_carry = cf(c);
  const bool low = (old & 0xf) > 9 || af(c);
  const bool high = old > 0x99 || old_carry;
  unsigned value = old;
  if (low) value = kAdd ? value + 6 : value - 6;
  // DAS: a borrow out of the low correction alone sets CF too.
  const bool borrow = !kAdd && low && old < 6;
  if (high) value = kAdd ? value + 0x60 : value - 0x60;
  const auto result = static_cast<uint8_t>(value);
  set_reg<uint8_t>(c, 0, result);
  set_flags_parts<uint8_t>(c, result, high || borrow, false, low);
  return true;
}

// SALC: AL is all ones or zero as CF says. Undocumented, in every Intel part.
const Op* carry_to_al(Cpu& c, const Op* op) {
  set_reg<uint8_t>(c, 0, cf(c) ? 0xff : 0);
  US_NEXT(c, op);
}

// T is signed.
template <class T>
bool bound(Cpu& c, const Op& op) {
  const Address a = any_address(c, op, 2 * sizeof(T), Access::kRead);
  if (!a.ok) return false;
  T limits[2];
  if (!load_slow(c, a.linear, limits, sizeof limits)) return false;
  const auto index = static_cast<T>(c.regs[op.dst]);
  if (index < limits[0] || index > limits[1]) return raise(c, kBoundRange);
  return true;
}

Selection select_bound(const Insn& in, Op& op) {
  op.dst = in.number(0);
  take_memory(op, in, 1);
  return {.fn = in.size(0) == 2 ? &call_op<bound<int16_t>> : &call_op<bound<int32_t>>};
}

Selection pure(Handler fn) { return {.fn = fn, .pure = true}; }

}  // namespace

Selection select_legacy(const Insn& in, Op& op) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_AAA: return pure(&call_op<ascii_adjust<true>>);
    case ZYDIS_MNEMONIC_AAS: return pure(&call_op<ascii_adjust<false>>);
    case ZYDIS_MNEMONIC_DAA: return pure(&call_op<decimal_adjust<true>>);
    case ZYDIS_MNEMONIC_DAS: return pure(&call_op<decimal_adjust<false>>);
    case ZYDIS_MNEMONIC_AAM: op.imm = in.imm(0); return {.fn = &call_op<ascii_after_multiply>};
    case ZYDIS_MNEMONIC_AAD: op.imm = in.imm(0); return pure(&call_op<ascii_before_divide>);
    case ZYDIS_MNEMONIC_SALC: return pure(&carry_to_al);
    case ZYDIS_MNEMONIC_BOUND: return select_bound(in, op);
    default: return {};
  }
}

}  // namespace us::hv
