// Floating point with 128-bit significands, for functions that the host's processor may not
// compute: vendors differ in transcendentals, so these are done in integers and come out the same
// everywhere. Errors are a few units of 2^-126, far below the 2^-64 of a register.
#pragma once

#include <bit>
#include <cstdint>

#include "hv/cpu/x87_state.h"

namespace us::hv::x87 {

__extension__ using Bits128 = unsigned __int128;

constexpr Bits128 wide_bits(uint64_t high, uint64_t low) { return (Bits128{high} << 64) | low; }

// (-1)^negative * significand * 2^(exponent - 127); bit 127 is set unless the value is zero.
struct Wide {
  bool negative = false;
  int exponent = 0;
  Bits128 significand = 0;
};

constexpr bool is_zero(const Wide& v) { return v.significand == 0; }
constexpr Wide negate(Wide v) {
  v.negative = !v.negative;
  return v;
}
constexpr Wide magnitude(Wide v) {
  v.negative = false;
  return v;
}
constexpr Wide scaled(Wide v, int power) {
  v.exponent += power;
  return v;
}

// bits * 2^unit.
constexpr Wide make_wide(bool negative, Bits128 bits, int unit) {
  if (bits == 0) return {negative, 0, 0};
  const auto high = static_cast<uint64_t>(bits >> 64);
  const int shift =
      high != 0 ? std::countl_zero(high) : 64 + std::countl_zero(static_cast<uint64_t>(bits));
  return {negative, unit + 127 - shift, bits << shift};
}

constexpr Wide wide_of(const Reg& r) {
  const int biased = r.exponent & 0x7fff;
  return make_wide((r.exponent & 0x8000) != 0, r.mantissa, (biased == 0 ? 1 : biased) - kBias - 63);
}

constexpr Wide kWideOne = {false, 0, Bits128{1} << 127};

constexpr Wide operator*(const Wide& a, const Wide& b) {
  if (is_zero(a) || is_zero(b)) return {a.negative != b.negative, 0, 0};
  const auto a1 = static_cast<uint64_t>(a.significand >> 64),
             a0 = static_cast<uint64_t>(a.significand);
  const auto b1 = static_cast<uint64_t>(b.significand >> 64),
             b0 = static_cast<uint64_t>(b.significand);
  const Bits128 low = Bits128{a0} * b0, cross1 = Bits128{a1} * b0, cross2 = Bits128{a0} * b1;
  const Bits128 middle =
      (low >> 64) + static_cast<uint64_t>(cross1) + static_cast<uint64_t>(cross2);
  const Bits128 high = Bits128{a1} * b1 + (cross1 >> 64) + (cross2 >> 64) + (middle >> 64);
  const bool carried = (high >> 127) != 0;
  const Bits128 significand = carried ? high : (high << 1) | (static_cast<uint64_t>(middle) >> 63);
  return {a.negative != b.negative, a.exponent + b.exponent + (carried ? 1 : 0), significand};
}

constexpr bool magnitude_less(const Wide& a, const Wide& b) {
  if (is_zero(a) || is_zero(b)) return is_zero(a) && !is_zero(b);
  return a.exponent != b.exponent ? a.exponent < b.exponent : a.significand < b.significand;
}

constexpr Wide operator+(const Wide& a, const Wide& b) {
  const Wide& big = magnitude_less(a, b) ? b : a;
  const Wide& small = magnitude_less(a, b) ? a : b;
  if (is_zero(small)) return big;
  const int distance = big.exponent - small.exponent;
  const Bits128 aligned = distance > 127 ? 0 : small.significand >> distance;
  if (a.negative != b.negative)
    return make_wide(big.negative, big.significand - aligned, big.exponent - 127);
  const Bits128 sum = big.significand + aligned;
  if (sum >= big.significand) return {big.negative, big.exponent, sum};
  return {big.negative, big.exponent + 1, (sum >> 1) | (Bits128{1} << 127)};
}
constexpr Wide operator-(const Wide& a, const Wide& b) { return a + negate(b); }

// b must not be zero.
constexpr Wide operator/(const Wide& a, const Wide& b) {
  if (is_zero(a)) return {a.negative != b.negative, 0, 0};
  // Long division of significands in [1, 2): the quotient's first bit is 1 or the next one is.
  Bits128 rest = a.significand, quotient = 0;
  int exponent = a.exponent - b.exponent;
  bool overflow = false;
  if (rest < b.significand) {
    --exponent;
    overflow = (rest >> 127) != 0;
    rest <<= 1;
  }
  for (int i = 0; i < 128; ++i) {
    quotient <<= 1;
    if (overflow || rest >= b.significand) {
      rest -= b.significand;
      quotient |= 1;
    }
    overflow = (rest >> 127) != 0;
    rest <<= 1;
  }
  return {a.negative != b.negative, exponent, quotient};
}

// What an instruction gives: a value, the exceptions it raises, and C1.
struct Answer {
  Reg value{};
  uint16_t flags = 0;
  bool rounded_up = false;
};

// Rounds to a register as the control word says (64 bits, whatever the precision control: SDM 1
// 8.1.5.2). `exact`: v is the true value; otherwise the result is inexact whatever its bits.
// Overflow and underflow give their masked or unmasked response. SDM 1 4.9.1.
Answer round_wide(const Wide& v, uint16_t control, bool exact);

}  // namespace us::hv::x87
