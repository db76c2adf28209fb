#include "hv/cpu/x87_wide.h"

namespace us::hv::x87 {
namespace {

// How far an unmasked overflow or underflow moves the exponent. SDM 1 8.5.4, 8.5.5.
constexpr int kAdjustment = 24576;

enum Rounding : unsigned { kNearest, kDown, kUp, kToZero };

struct Rounded {
  uint64_t mantissa;
  bool carry;  // the mantissa became 2^64 and is 2^63 now
  bool inexact, up;
};

// Drops the low 64 bits.
Rounded round_bits(Bits128 bits, bool sticky, bool negative, Rounding rounding) {
  const auto kept = static_cast<uint64_t>(bits >> 64), rest = static_cast<uint64_t>(bits);
  Rounded r{kept, false, rest != 0 || sticky, false};
  if (!r.inexact) return r;
  const bool above_half = (rest >> 63) != 0 && ((rest << 1) != 0 || sticky);
  const bool half = rest == 1ull << 63 && !sticky;
  switch (rounding) {
    case kNearest: r.up = above_half || (half && (kept & 1) != 0); break;
    case kDown: r.up = negative; break;
    case kUp: r.up = !negative; break;
    case kToZero: break;
  }
  if (r.up && ++r.mantissa == 0) {
    r.mantissa = kIntegerBit;
    r.carry = true;
  }
  return r;
}

uint16_t packed(int biased, bool negative) {
  return static_cast<uint16_t>(biased | (negative ? kSign : 0));
}

Answer overflowed(const Wide& v, const Rounded& r, int biased, uint16_t control,
                  Rounding rounding) {
  Answer answer{.flags = kOe, .rounded_up = r.up};
  if ((control & kOe) == 0) {
    answer.value = {r.mantissa, packed(biased - kAdjustment, v.negative), {}};
    if (r.inexact) answer.flags |= kPe;
    return answer;
  }
  const bool to_infinity =
      rounding == kNearest || (rounding == kUp && !v.negative) || (rounding == kDown && v.negative);
  answer.flags |= kPe;
  answer.rounded_up = to_infinity;
  answer.value = to_infinity ? Reg{kIntegerBit, packed(kMaxExponent, v.negative), {}}
                             : Reg{~0ull, packed(kMaxExponent - 1, v.negative), {}};
  return answer;
}

Answer tiny(const Wide& v, const Rounded& unbounded, int biased, uint16_t control,
            Rounding rounding, bool exact) {
  if ((control & kUe) == 0) {
    Answer answer{.flags = kUe, .rounded_up = unbounded.up};
    answer.value = {unbounded.mantissa, packed(biased + kAdjustment, v.negative), {}};
    if (unbounded.inexact) answer.flags |= kPe;
    return answer;
  }
  const int shift = 1 - (v.exponent + kBias);
  const bool gone = shift > 127;
  const Bits128 bits = gone ? 0 : v.significand >> shift;
  const bool sticky = !exact || gone || (bits << shift) != v.significand;
  const Rounded r = round_bits(bits, sticky, v.negative, rounding);
  Answer answer{.rounded_up = r.up};
  if (r.inexact) answer.flags = kUe | kPe;
  const bool normal = (r.mantissa & kIntegerBit) != 0;
  answer.value = {r.mantissa, packed(normal ? 1 : 0, v.negative), {}};
  return answer;
}

}  // namespace

Answer round_wide(const Wide& v, uint16_t control, bool exact) {
  const auto rounding = static_cast<Rounding>((control >> 10) & 3);
  if (is_zero(v)) return {.value = {0, packed(0, v.negative), {}}};
  const Rounded r = round_bits(v.significand, !exact, v.negative, rounding);
  const int biased = v.exponent + kBias + (r.carry ? 1 : 0);
  if (biased >= kMaxExponent) return overflowed(v, r, biased, control, rounding);
  if (biased < 1) return tiny(v, r, biased, control, rounding, exact);
  Answer answer{.rounded_up = r.up};
  if (r.inexact) answer.flags = kPe;
  answer.value = {r.mantissa, packed(biased, v.negative), {}};
  return answer;
}

}  // namespace us::hv::x87
