// F2XM1, FYL2X, FYL2XP1, FPTAN, FPATAN, FSIN, FCOS and FSINCOS in 128-bit integers: the result is
// the correctly rounded one but for cases closer than 2^-100 to a tie, and the same on every host.
// Arguments of the trigonometric ones are reduced with the 66-bit pi that SDM 1 8.3.8 gives.
#include "hv/cpu/x87_functions.h"

#include <cstdlib>

namespace us::hv::x87 {
namespace {

constexpr Wide kLn2 = {false, -1, wide_bits(0xb172'17f7'd1cf'79ab, 0xc9e3'b398'03f2'f6af)};
constexpr Wide kTwoOverLn2 = {false, 1, wide_bits(0xb8aa'3b29'5c17'f0bb, 0xbe87'fed0'691d'3e89)};
constexpr Wide kPi = {false, 1, wide_bits(0xc90f'daa2'2168'c234, 0xc4c6'628b'80dc'1cd1)};
constexpr Wide kThreeQuartersPi = {false, 1,
                                   wide_bits(0x96cb'e3f9'990e'91a7, 0x9394'c9e8'a0a5'159d)};
constexpr Wide kSqrt2 = {false, 0, wide_bits(0xb504'f333'f9de'6484, 0x597d'89b3'754a'be9f)};

// atan(k / 16).
constexpr Wide kAtan[17] = {
    {},
    {false, -5, wide_bits(0xffaa'ddb9'67ef'4e36, 0xcb27'92dc'0e2e'0d51)},
    {false, -4, wide_bits(0xfead'd4d5'617b'6e32, 0xc897'989f'3e88'8ef8)},
    {false, -3, wide_bits(0xbdcb'da5e'72d8'1134, 0x7b0b'4f88'1c9c'7488)},
    {false, -3, wide_bits(0xfadb'afc9'6406'eb15, 0x6dc7'9ef5'f7a2'17e6)},
    {false, -2, wide_bits(0x9b13'b9b8'3f5e'5e69, 0xc5ab'b498'd27a'f328)},
    {false, -2, wide_bits(0xb7b0'ca0f'26f7'8473, 0x8aa3'2122'dcfe'4483)},
    {false, -2, wide_bits(0xd327'761e'611f'e5b6, 0x427c'95e9'001e'7136)},
    {false, -2, wide_bits(0xed63'382b'0dda'7b45, 0x6fe4'45ec'bc3a'8d03)},
    {false, -1, wide_bits(0x832b'f4a6'd986'7e2a, 0x4b6a'09cb'61a5'15c1)},
    {false, -1, wide_bits(0x8f00'5d5e'f7f5'9f9b, 0x5c83'5e16'65c4'3748)},
    {false, -1, wide_bits(0x9a2f'80e6'71bd'da20, 0x4226'f8e2'204f'f3bd)},
    {false, -1, wide_bits(0xa4bc'7d19'34f7'0924, 0x19a8'7f2a'457d'ac9f)},
    {false, -1, wide_bits(0xaeac'4c38'b4d8'c080, 0x1472'5e2f'3e52'070a)},
    {false, -1, wide_bits(0xb805'3e2b'c231'9e73, 0xcb2d'a552'10a4'443d)},
    {false, -1, wide_bits(0xc0ce'85b8'ac52'6640, 0x89dd'62c4'6e92'fa25)},
    {false, -1, wide_bits(0xc90f'daa2'2168'c234, 0xc4c6'628b'80dc'1cd1)},
};

constexpr Wide small(unsigned n) { return make_wide(false, n, 0); }

// --- series. Each factor below one is kept below one, so that directed rounding sees on which side
// of its argument a tiny result lies.

constexpr unsigned kTerms = 34;
struct Coefficients {
  Wide factorial[kTerms + 1];  // 1 / n!
  Wide odd[kTerms + 1];        // 1 / (2n + 1)
};
constexpr Coefficients make_coefficients() {
  Coefficients c;
  c.factorial[0] = c.odd[0] = kWideOne;
  for (unsigned n = 1; n <= kTerms; ++n) {
    c.factorial[n] = c.factorial[n - 1] / small(n);
    c.odd[n] = kWideOne / small(2 * n + 1);
  }
  return c;
}
constexpr Coefficients kCoefficients = make_coefficients();

Wide below_one(const Wide& v) {
  constexpr Wide kAlmost = {false, -1, ~Bits128{0}};
  return v.exponent >= 0 ? kAlmost : v;
}

// (e^y - 1) / y for |y| < 0.7.
Wide exponential_series(const Wide& y) {
  Wide sum = kCoefficients.factorial[kTerms];
  for (unsigned n = kTerms - 1; n >= 1; --n) sum = sum * y + kCoefficients.factorial[n];
  return sum;
}

// sin(r) / r and cos(r) for |r| < 0.79: 1 - r^2/(k+1)! * k! ..., k odd or even.
Wide alternating_series(const Wide& r, unsigned first) {
  const Wide square = negate(r * r);
  const unsigned last = first + 32;
  Wide sum = kCoefficients.factorial[last];
  for (unsigned n = last - 2; n > first; n -= 2) sum = sum * square + kCoefficients.factorial[n];
  return below_one(sum * square + kWideOne);
}
Wide sine(const Wide& r) { return r * alternating_series(r, 1); }
Wide cosine(const Wide& r) { return alternating_series(r, 0); }

// atan(u) / u, |u| <= 1/31.
Wide arctangent_series(const Wide& u) {
  const Wide square = negate(u * u);
  Wide sum = kCoefficients.odd[13];
  for (unsigned n = 12; n >= 1; --n) sum = sum * square + kCoefficients.odd[n];
  return below_one(sum * square + kWideOne);
}

// ln((1 + s) / (1 - s)) / (2 s), |s| < 0.18.
Wide logarithm_series(const Wide& s) {
  const Wide square = s * s;
  Wide sum = kCoefficients.odd[26];
  for (unsigned n = 26; n >= 1; --n) sum = sum * square + kCoefficients.odd[n - 1];
  return sum;
}

// --- functions on wide numbers

// log2(v), v > 0; exact for powers of two.
Wide logarithm2(Wide v) {
  int exponent = v.exponent;
  v.exponent = 0;
  if (!magnitude_less(v, kSqrt2)) {
    v.exponent = -1;
    ++exponent;
  }
  const Wide whole = make_wide(exponent < 0, static_cast<unsigned>(std::abs(exponent)), 0);
  const Wide s = (v - kWideOne) / (v + kWideOne);
  if (is_zero(s)) return whole;
  return whole + s * logarithm_series(s) * kTwoOverLn2;
}

// atan(t), 0 < t <= 1.
Wide arctangent(const Wide& t) {
  unsigned k = 0;
  if (t.exponent >= -5) {
    k = static_cast<unsigned>(t.significand >> (123 - t.exponent - 1));
    k = (k + 1) / 2;
  }
  if (k == 0) return t * arctangent_series(t);
  const Wide c = make_wide(false, k, -4);
  const Wide u = (t - c) / (kWideOne + t * c);
  if (is_zero(u)) return kAtan[k];
  return kAtan[k] + u * arctangent_series(u);
}

struct Reduced {
  Wide rest;         // in [-pi/4, pi/4]
  unsigned quarter;  // mod 4
};
// |a| < 2^63, a not zero.
Reduced reduce(const Reg& a) {
  // pi / 2 in units of 2^-67.
  constexpr Bits128 kHalfPi = (Bits128{0xc'90fd'aa22} << 32 | 0x168c'234c);
  const Wide x = magnitude(wide_of(a));
  Reduced out{x, 0};
  if (x.exponent >= -1) {
    Bits128 rest = 0;
    unsigned quotient = 0;
    const int bits = x.exponent + 68;  // of x in those units; the last ones may be zeros
    for (int i = 0; i < bits; ++i) {
      const unsigned bit = i < 128 ? static_cast<unsigned>(x.significand >> (127 - i)) & 1 : 0;
      rest = (rest << 1) | bit;
      quotient = (quotient << 1) & 3;
      if (rest >= kHalfPi) {
        rest -= kHalfPi;
        quotient |= 1;
      }
    }
    const bool nearer_above = rest * 2 > kHalfPi;
    out.rest = make_wide(nearer_above, nearer_above ? kHalfPi - rest : rest, -67);
    out.quarter = (quotient + (nearer_above ? 1 : 0)) & 3;
  }
  return out;
}

Wide sine_of(const Reg& a) {
  const Reduced r = reduce(a);
  Wide v = (r.quarter & 1) != 0 ? cosine(r.rest) : sine(r.rest);
  if (((r.quarter & 2) != 0) != negative(a)) v = negate(v);
  return v;
}

Wide cosine_of(const Reg& a) {
  const Reduced r = reduce(a);
  const Wide v = (r.quarter & 1) != 0 ? sine(r.rest) : cosine(r.rest);
  return r.quarter == 1 || r.quarter == 2 ? negate(v) : v;
}

Wide tangent_of(const Reg& a) {
  const Reduced r = reduce(a);
  Wide v;
  if ((r.quarter & 1) != 0) {
    v = negate(cosine(r.rest) / sine(r.rest));
  } else if (r.rest.exponent < -40) {  // a bit more than r
    v = r.rest;
    v.significand |= 1;
  } else {
    v = sine(r.rest) / cosine(r.rest);
  }
  return negative(a) ? negate(v) : v;
}

uint16_t denormal_flag(const Reg& a) { return is_denormal(a) ? kDe : 0; }

Answer inexact(const Wide& v, uint16_t control, unsigned flags) {
  Answer answer = round_wide(v, control, false);
  answer.flags = static_cast<uint16_t>(answer.flags | flags);
  return answer;
}

Answer plain(const Reg& value, unsigned flags = 0) {
  return {.value = value, .flags = static_cast<uint16_t>(flags)};
}

Reg signed_zero(bool minus) { return {0, minus ? kSign : uint16_t{0}, {}}; }
Reg signed_infinity(bool minus) {
  return {kIntegerBit, static_cast<uint16_t>(kMaxExponent | (minus ? kSign : 0)), {}};
}

Answer divided_by_zero(bool minus) { return plain(signed_infinity(minus), kZe); }

}  // namespace

Answer invalid() { return plain(kIndefinite, kIe); }

bool in_trigonometric_range(const Reg& a) { return (a.exponent & kMaxExponent) < kBias + 63; }

Answer fsin(const Reg& a, uint16_t control) {
  if (is_infinity(a)) return invalid();
  if (is_zero(a)) return plain(a);
  return inexact(sine_of(a), control, denormal_flag(a));
}

Answer fcos(const Reg& a, uint16_t control) {
  if (is_infinity(a)) return invalid();
  if (is_zero(a)) return plain(kOne);
  return inexact(cosine_of(a), control, denormal_flag(a));
}

Answer fptan(const Reg& a, uint16_t control) {
  if (is_infinity(a)) return invalid();
  if (is_zero(a)) return plain(a);
  return inexact(tangent_of(a), control, denormal_flag(a));
}

// Outside [-1, 1] undefined: the operand stays, except that the infinities have their limits.
Answer f2xm1(const Reg& a, uint16_t control) {
  const unsigned exponent = a.exponent & kMaxExponent;
  if (is_zero(a)) return plain(a);
  if (is_infinity(a)) return plain(negative(a) ? Reg{kIntegerBit, kSign | kBias, {}} : a);
  if (exponent >= kBias) {
    const bool minus_one = a.exponent == (kSign | kBias) && a.mantissa == kIntegerBit;
    return plain(minus_one ? Reg{kIntegerBit, kSign | (kBias - 1), {}} : a);
  }
  const Wide y = wide_of(a) * kLn2;
  return inexact(y * exponential_series(y), control, denormal_flag(a));
}

// y * log2(x). SDM 2 table FYL2X.
Answer fyl2x(const Reg& x, const Reg& y, uint16_t control) {
  const bool one = x.exponent == kBias && x.mantissa == kIntegerBit;
  if (negative(x) && !is_zero(x)) return invalid();
  if (is_zero(x)) {
    if (is_zero(y)) return invalid();
    return is_infinity(y) ? plain(signed_infinity(!negative(y))) : divided_by_zero(!negative(y));
  }
  const unsigned flags = denormal_flag(x) | denormal_flag(y);
  const bool below_one_x = (x.exponent & kMaxExponent) < kBias;
  if (is_infinity(y)) {
    return one ? invalid() : plain(signed_infinity(negative(y) != below_one_x), flags);
  }
  if (is_infinity(x)) return is_zero(y) ? invalid() : plain(signed_infinity(negative(y)), flags);
  if (is_zero(y) || one) return plain(signed_zero(negative(y) != below_one_x), flags);
  const Wide v = wide_of(x);
  Answer answer = round_wide(wide_of(y) * logarithm2(v), control, v.significand << 1 == 0);
  answer.flags = static_cast<uint16_t>(answer.flags | flags);
  return answer;
}

// y * log2(x + 1), meant for |x| < 1 - sqrt(1/2); beyond (undefined) it goes on as the mathematics
// does, and at or below -1 it is invalid.
Answer fyl2xp1(const Reg& x, const Reg& y, uint16_t control) {
  const bool minus = negative(x) != negative(y);
  if (negative(x) && (x.exponent & kMaxExponent) >= kBias) return invalid();
  const unsigned flags = denormal_flag(x) | denormal_flag(y);
  if (is_infinity(x)) return is_zero(y) ? invalid() : plain(signed_infinity(minus), flags);
  if (is_infinity(y)) return is_zero(x) ? invalid() : plain(signed_infinity(minus), flags);
  if (is_zero(x) || is_zero(y)) return plain(signed_zero(minus), flags);
  const Wide v = wide_of(x);
  Wide logarithm;
  if (v.exponent >= -2) {
    logarithm = logarithm2(kWideOne + v);
  } else {
    const Wide s = v / (small(2) + v);
    logarithm = s * logarithm_series(s) * kTwoOverLn2;
  }
  return inexact(wide_of(y) * logarithm, control, flags);
}

// The angle of the point (x, y). SDM 2 table FPATAN.
Answer fpatan(const Reg& x, const Reg& y, uint16_t control) {
  const bool minus = negative(y);
  const unsigned flags = denormal_flag(x) | denormal_flag(y);
  const auto angle = [&](const Wide& v) { return inexact(minus ? negate(v) : v, control, flags); };
  if (is_infinity(y)) {
    if (!is_infinity(x)) return angle(scaled(kPi, -1));
    return angle(negative(x) ? kThreeQuartersPi : scaled(kPi, -2));
  }
  if (is_zero(y) || is_infinity(x))
    return negative(x) ? angle(kPi) : plain(signed_zero(minus), flags);
  if (is_zero(x)) return angle(scaled(kPi, -1));
  const Wide wx = magnitude(wide_of(x)), wy = magnitude(wide_of(y));
  Wide v = magnitude_less(wx, wy) ? scaled(kPi, -1) - arctangent(wx / wy) : arctangent(wy / wx);
  if (negative(x)) v = kPi - v;
  return angle(v);
}

}  // namespace us::hv::x87
