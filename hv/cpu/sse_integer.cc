// Packed-integer arithmetic, logic, unpacking and widening on XMM registers, and the bitwise
// instructions of the floating-point sets (no SIMD exception either).
#include "hv/cpu/sse_handlers.h"
#include "hv/cpu/sse_integer_list.h"

namespace us::hv::sse {
namespace {

// clang-format off
#define US_XMM_ONLY_BINARY(X)                                                             \
  X(ANDPS, "andps") X(ANDPD, "andpd") X(ANDNPS, "andnps") X(ANDNPD, "andnpd")             \
  X(ORPS, "orps") X(ORPD, "orpd") X(XORPS, "xorps") X(XORPD, "xorpd")                     \
  X(UNPCKLPS, "unpcklps") X(UNPCKHPS, "unpckhps") X(UNPCKLPD, "unpcklpd")                 \
  X(UNPCKHPD, "unpckhpd") X(PUNPCKHBW, "punpckhbw") X(PUNPCKHWD, "punpckhwd")             \
  X(PUNPCKHDQ, "punpckhdq") X(PUNPCKLQDQ, "punpcklqdq") X(PUNPCKHQDQ, "punpckhqdq")       \
  X(PACKUSDW, "packusdw") X(PSHUFB, "pshufb") X(PCMPEQQ, "pcmpeqq") X(PCMPGTQ, "pcmpgtq") \
  X(PMAXSB, "pmaxsb") X(PMAXSD, "pmaxsd") X(PMAXUW, "pmaxuw") X(PMAXUD, "pmaxud")         \
  X(PMINSB, "pminsb") X(PMINSD, "pminsd") X(PMINUW, "pminuw") X(PMINUD, "pminud")         \
  X(PMULLD, "pmulld") X(PMULDQ, "pmuldq")
// clang-format on

// clang-format off
#define US_WIDEN_HALF(X)                                                  \
  X(PMOVSXBW, "pmovsxbw") X(PMOVSXWD, "pmovsxwd") X(PMOVSXDQ, "pmovsxdq") \
  X(PMOVZXBW, "pmovzxbw") X(PMOVZXWD, "pmovzxwd") X(PMOVZXDQ, "pmovzxdq")
// clang-format on
// clang-format off
#define US_WIDEN_QUARTER(X)                                               \
  X(PMOVSXBD, "pmovsxbd") X(PMOVSXWQ, "pmovsxwq") X(PMOVZXBD, "pmovzxbd") \
  X(PMOVZXWQ, "pmovzxwq")
// clang-format on
#define US_WIDEN_EIGHTH(X) X(PMOVSXBQ, "pmovsxbq") X(PMOVZXBQ, "pmovzxbq")

US_XMM_ONLY_BINARY(US_SSE_INT)
US_WIDEN_HALF(US_SSE_INT1)
US_WIDEN_QUARTER(US_SSE_INT1)
US_WIDEN_EIGHTH(US_SSE_INT1)
US_SSE_INT1(PHMINPOSUW, "phminposuw")

#define US_BINARY_ROW(name, text) US_ROW_XX(name, X128, Binary),
#define US_UNARY_ROW(name, text) US_ROW_XX(name, X128, Unary),
#define US_HALF_ROW(name, text) US_ROW_XX(name, X64, Unary),
#define US_QUARTER_ROW(name, text) US_ROW_XX(name, X32, Unary),
#define US_EIGHTH_ROW(name, text) US_ROW_XX(name, X16, Unary),
#define US_SHIFT_ROWS(name, text) \
  US_ROW_XX(name, X128, Binary),  \
      {ZYDIS_MNEMONIC_##name, Kind::kXmm, Kind::kImm, forms<ImmSource, Binary<F_##name>>()},

constexpr Row kRows[] = {
    // clang-format off
    US_INTEGER_BINARY(US_BINARY_ROW)
    US_INTEGER_JOINED(US_BINARY_ROW)
    US_INTEGER_UNPACK_LOW(US_BINARY_ROW)
    US_XMM_ONLY_BINARY(US_BINARY_ROW)
    US_INTEGER_UNARY(US_UNARY_ROW)
    US_INTEGER_SHIFT(US_SHIFT_ROWS)
    US_WIDEN_HALF(US_HALF_ROW)
    US_WIDEN_QUARTER(US_QUARTER_ROW)
    US_WIDEN_EIGHTH(US_EIGHTH_ROW)
    US_UNARY_ROW(PHMINPOSUW, )
    // clang-format on
};

}  // namespace

std::span<const Row> integer_rows() { return kRows; }

}  // namespace us::hv::sse
