// RCP and RSQRT. Processors answer these differently within the error SDM 2 allows (1.5 * 2^-12),
// and a recording must replay on any of them, so they are computed here in integers: the exact
// value, rounded to twelve fraction bits. MXCSR has no part in it; denormals count as zero, tiny
// reciprocals become zero, no flag is raised. SDM 2 RCPPS, RSQRTPS.
#include <cstdint>

#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {
namespace {

constexpr uint32_t kSign = 0x8000'0000, kInfinity = 0x7f80'0000, kQuiet = 0x0040'0000,
                   kDefaultNan = 0xffc0'0000, kFraction = 0x007f'ffff;

uint32_t reciprocal(uint32_t x) {
  const uint32_t sign = x & kSign, exponent = (x >> 23) & 0xff, fraction = x & kFraction;
  if (exponent == 0xff) return fraction != 0 ? (x | kQuiet) : sign;
  if (exponent == 0) return sign | kInfinity;
  // 2/m in (1, 2] with twelve fraction bits, m = 1.fraction; the value is that times 2^(126 - e).
  const uint64_t m = fraction | 0x0080'0000;
  const uint32_t q = static_cast<uint32_t>(((uint64_t{1} << 37) / m + 1) >> 1);  // [2^12, 2^13]
  const int result_exponent = static_cast<int>(253 - exponent) + (q == 0x2000 ? 1 : 0);
  if (result_exponent <= 0) return sign;
  return sign | static_cast<uint32_t>(result_exponent) << 23 | (q & 0xfff) << 11;
}

uint32_t integer_root(uint32_t n) {  // floor, n < 2^30
  uint32_t root = 0;
  for (uint32_t bit = 1u << 14; bit != 0; bit >>= 1) {
    const uint32_t next = root | bit;
    if (next * next <= n) root = next;
  }
  return root;
}

uint32_t reciprocal_root(uint32_t x) {
  const uint32_t sign = x & kSign, exponent = (x >> 23) & 0xff, fraction = x & kFraction;
  if (exponent == 0xff && fraction != 0) return x | kQuiet;
  if (exponent == 0) return sign | kInfinity;
  if (sign != 0) return kDefaultNan;
  if (exponent == 0xff) return 0;
  // x = m * 2^(2h), m in [1, 4). 1/sqrt(m) in (1/2, 1], first with fourteen bits, then rounded.
  const int e = static_cast<int>(exponent) - 127;
  const uint64_t m = (uint64_t{fraction} | 0x0080'0000) << (e & 1);
  const int h = (e - (e & 1)) / 2;
  const uint32_t root = integer_root(static_cast<uint32_t>((uint64_t{1} << 51) / m));
  const uint32_t q = (root + 1) >> 1;  // [2^12, 2^13]
  const int result_exponent = 126 - h + (q == 0x2000 ? 1 : 0);
  return static_cast<uint32_t>(result_exponent) << 23 | (q & 0xfff) << 11;
}

template <uint32_t (*kFunction)(uint32_t)>
struct Packed : Silent {
  static V f(V s) {
    Xmm x;
    _mm_store_si128(reinterpret_cast<V*>(&x), s);
    for (uint32_t& element : x.d) element = kFunction(element);
    return _mm_load_si128(reinterpret_cast<const V*>(&x));
  }
};
template <uint32_t (*kFunction)(uint32_t)>
struct Scalar : Silent {
  static V f(V d, V s) {
    const uint32_t result = kFunction(static_cast<uint32_t>(_mm_cvtsi128_si32(s)));
    return _mm_castps_si128(_mm_move_ss(
        _mm_castsi128_ps(d), _mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(result)))));
  }
};
using F_RCPPS = Packed<reciprocal>;
using F_RCPSS = Scalar<reciprocal>;
using F_RSQRTPS = Packed<reciprocal_root>;
using F_RSQRTSS = Scalar<reciprocal_root>;

constexpr Row kRows[] = {
    US_ROW_XX(RCPPS, X128, Unary),
    US_ROW_XX(RCPSS, X32, Binary),
    US_ROW_XX(RSQRTPS, X128, Unary),
    US_ROW_XX(RSQRTSS, X32, Binary),
};

}  // namespace

std::span<const Row> approximation_rows() { return kRows; }

}  // namespace us::hv::sse
