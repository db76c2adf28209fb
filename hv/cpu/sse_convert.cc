// Conversions between integers, single and double precision, in XMM, MMX and general registers.
#include "hv/cpu/mmx_bodies.h"
#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {
namespace {

US_SSE_FP1(CVTDQ2PS, "cvtdq2ps", kNone)
US_SSE_FP1(CVTDQ2PD, "cvtdq2pd", kNone)
US_SSE_FP1(CVTPS2DQ, "cvtps2dq", kNone)
US_SSE_FP1(CVTTPS2DQ, "cvttps2dq", kNone)
US_SSE_FP1(CVTPD2DQ, "cvtpd2dq", kNone)
US_SSE_FP1(CVTTPD2DQ, "cvttpd2dq", kNone)
US_SSE_FP1(CVTPS2PD, "cvtps2pd", kNone)
US_SSE_FP1(CVTPD2PS, "cvtpd2ps", kPs)
US_SSE_FP(CVTSS2SD, "cvtss2sd", kNone)
US_SSE_FP(CVTSD2SS, "cvtsd2ss", kSs)

// From a general register (or memory) to the low element.
#define US_FROM_INT(name, text, type)                  \
  struct F_##name : Raising<Tiny::kNone> {             \
    static V f(V d, type v) {                          \
      asm volatile(text " %1, %0" : "+x"(d) : "r"(v)); \
      return d;                                        \
    }                                                  \
  };
US_FROM_INT(CVTSI2SS_32, "cvtsi2ssl", uint32_t)
US_FROM_INT(CVTSI2SS_64, "cvtsi2ssq", uint64_t)
US_FROM_INT(CVTSI2SD_32, "cvtsi2sdl", uint32_t)
US_FROM_INT(CVTSI2SD_64, "cvtsi2sdq", uint64_t)

#define US_TO_INT(name, text, type)                    \
  struct F_##name : Raising<Tiny::kNone> {             \
    static type f(V s) {                               \
      type v;                                          \
      asm volatile(text " %1, %0" : "=r"(v) : "x"(s)); \
      return v;                                        \
    }                                                  \
  };
#define US_TO_INTS(name, text)         \
  US_TO_INT(name##_32, text, uint32_t) \
  US_TO_INT(name##_64, text, uint64_t)
US_TO_INTS(CVTSS2SI, "cvtss2si")
US_TO_INTS(CVTTSS2SI, "cvttss2si")
US_TO_INTS(CVTSD2SI, "cvtsd2si")
US_TO_INTS(CVTTSD2SI, "cvttsd2si")

// MMX forms, by the XMM instruction on a register whose other half is zero (and so raises nothing).
struct F_CVTPI2PS : Raising<Tiny::kNone> {
  static V f(V d, V s) {
    return _mm_castpd_si128(_mm_move_sd(_mm_castsi128_pd(d), _mm_castsi128_pd(F_CVTDQ2PS::f(s))));
  }
};
struct F_CVTPI2PD : Raising<Tiny::kNone> {
  static V f(V, V s) { return F_CVTDQ2PD::f(s); }
};
struct F_CVTPS2PI : Raising<Tiny::kNone> {
  static V f(V s) { return F_CVTPS2DQ::f(_mm_move_epi64(s)); }
};
struct F_CVTTPS2PI : Raising<Tiny::kNone> {
  static V f(V s) { return F_CVTTPS2DQ::f(_mm_move_epi64(s)); }
};

constexpr Row from_int(ZydisMnemonic m, uint8_t width, Forms f) {
  return {m, Kind::kXmm, Kind::kGpr, f, width};
}
constexpr Row to_int(ZydisMnemonic m, uint8_t width, Forms f) {
  return {m, Kind::kGpr, Kind::kXmm, f, width};
}
#define US_FROM_INT_ROWS(name)                                                             \
  from_int(ZYDIS_MNEMONIC_##name, 4, forms<GprSource<uint32_t>, Binary<F_##name##_32>>()), \
      from_int(ZYDIS_MNEMONIC_##name, 8, forms<GprSource<uint64_t>, Binary<F_##name##_64>>())
#define US_TO_INT_ROWS(name, source)                                       \
  to_int(ZYDIS_MNEMONIC_##name, 4, forms<source, ToGpr<F_##name##_32>>()), \
      to_int(ZYDIS_MNEMONIC_##name, 8, forms<source, ToGpr<F_##name##_64>>())

constexpr Row both(ZydisMnemonic m, Kind dst, Kind src, Forms f) {
  return {m, dst, src, f, 0, Unit::kBoth};
}

constexpr Row kRows[] = {
    US_ROW_XX(CVTDQ2PS, X128, Unary),
    US_ROW_XX(CVTDQ2PD, X64, Unary),
    US_ROW_XX(CVTPS2DQ, X128, Unary),
    US_ROW_XX(CVTTPS2DQ, X128, Unary),
    US_ROW_XX(CVTPD2DQ, X128, Unary),
    US_ROW_XX(CVTTPD2DQ, X128, Unary),
    US_ROW_XX(CVTPS2PD, X64, Unary),
    US_ROW_XX(CVTPD2PS, X128, Unary),
    US_ROW_XX(CVTSS2SD, X32, Binary),
    US_ROW_XX(CVTSD2SS, X64, Binary),
    US_FROM_INT_ROWS(CVTSI2SS),
    US_FROM_INT_ROWS(CVTSI2SD),
    US_TO_INT_ROWS(CVTSS2SI, X32),
    US_TO_INT_ROWS(CVTTSS2SI, X32),
    US_TO_INT_ROWS(CVTSD2SI, X64),
    US_TO_INT_ROWS(CVTTSD2SI, X64),
    // From memory no MMX register takes part, and the x87 state stays: SDM 2 says so of CVTPI2PD,
    // and processors do the same for CVTPI2PS.
    both(ZYDIS_MNEMONIC_CVTPI2PS, Kind::kXmm, Kind::kMmx,
         split_forms(forms<M64, MmxToXmm<F_CVTPI2PS>>(), forms<M64, Binary<F_CVTPI2PS>>())),
    both(ZYDIS_MNEMONIC_CVTPI2PD, Kind::kXmm, Kind::kMmx,
         split_forms(forms<M64, MmxToXmm<F_CVTPI2PD>>(), forms<M64, Binary<F_CVTPI2PD>>())),
    both(ZYDIS_MNEMONIC_CVTPS2PI, Kind::kMmx, Kind::kXmm, forms<X64, MmxUnary<F_CVTPS2PI>>()),
    both(ZYDIS_MNEMONIC_CVTTPS2PI, Kind::kMmx, Kind::kXmm, forms<X64, MmxUnary<F_CVTTPS2PI>>()),
    both(ZYDIS_MNEMONIC_CVTPD2PI, Kind::kMmx, Kind::kXmm, forms<X128, MmxUnary<F_CVTPD2DQ>>()),
    both(ZYDIS_MNEMONIC_CVTTPD2PI, Kind::kMmx, Kind::kXmm, forms<X128, MmxUnary<F_CVTTPD2DQ>>()),
};

}  // namespace

std::span<const Row> convert_rows() { return kRows; }

}  // namespace us::hv::sse
