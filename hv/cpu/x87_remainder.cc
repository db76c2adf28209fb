// FPREM and FPREM1, exact in integers. The manual leaves open how far a partial remainder goes;
// this one reduces by 32 to 63 bits as Intel's processors do. SDM 2, FPREM, FPREM1.
#include "hv/cpu/x87_functions.h"

namespace us::hv::x87 {
namespace {

struct Division {
  Bits128 rest;
  uint64_t quotient;  // its low bits
};

unsigned quotient_conditions(uint64_t q) {
  return ((q & 1) != 0 ? kC1 : 0) | ((q & 2) != 0 ? kC3 : 0) | ((q & 4) != 0 ? kC0 : 0);
}

// Rounds a quotient to nearest: `rest` and `divisor` in the same unit. True: the rest changed
// sides.
bool round_to_nearest(Division& d, Bits128 divisor) {
  const Bits128 twice = d.rest * 2;
  if (twice < divisor || (twice == divisor && (d.quotient & 1) == 0)) return false;
  d.rest = divisor - d.rest;
  ++d.quotient;
  return true;
}

}  // namespace

Answer remainder(const Reg& a, const Reg& b, uint16_t control, bool nearest, unsigned& conditions) {
  conditions = 0;
  if (is_infinity(a) || is_zero(b)) return invalid();
  const auto flags = static_cast<uint16_t>(is_denormal(a) || is_denormal(b) ? kDe : 0);
  if (is_zero(a)) return {.value = a, .flags = flags};
  const Wide wa = wide_of(a), wb = wide_of(b);
  const int distance = wa.exponent - wb.exponent;
  Answer answer;
  if (is_infinity(b) || distance < -1 || (distance < 0 && !nearest)) {
    answer = round_wide(wa, control, true);
  } else {
    const auto ma = static_cast<uint64_t>(wa.significand >> 64);
    const auto mb = static_cast<uint64_t>(wb.significand >> 64);
    const bool partial = distance >= 64;
    const int shift = partial ? (distance & 31) | 32 : distance < 0 ? 0 : distance;
    const Bits128 dividend = Bits128{ma} << shift;
    const Bits128 divisor = distance < 0 ? Bits128{mb} << 1 : Bits128{mb};
    Division d{dividend % divisor, static_cast<uint64_t>(dividend / divisor)};
    const bool flip = nearest && !partial && round_to_nearest(d, divisor);
    conditions = partial ? kC2 : quotient_conditions(d.quotient);
    const int unit = (distance < 0 ? wa.exponent : wb.exponent + distance - shift) - 63;
    Wide rest = make_wide(wa.negative != flip, d.rest, unit);
    if (d.rest == 0) rest.negative = wa.negative;
    answer = round_wide(rest, control, true);
  }
  answer.flags |= flags;
  return answer;
}

}  // namespace us::hv::x87
