// Floating-point arithmetic: add to square root, horizontal forms, dot products, rounding.
#include <array>
#include <utility>

#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {
namespace {

// Four element types of one operation. The underflow column of Raising says which results can be
// tiny: minimum, maximum and square root cannot underflow.
#define US_FOUR(op, text, tiny_ps, tiny_pd, tiny_ss, tiny_sd) \
  US_SSE_FP(op##PS, text "ps", tiny_ps)                       \
  US_SSE_FP(op##PD, text "pd", tiny_pd)                       \
  US_SSE_FP(op##SS, text "ss", tiny_ss)                       \
  US_SSE_FP(op##SD, text "sd", tiny_sd)

US_FOUR(ADD, "add", kPs, kPd, kSs, kSd)
US_FOUR(SUB, "sub", kPs, kPd, kSs, kSd)
US_FOUR(MUL, "mul", kPs, kPd, kSs, kSd)
US_FOUR(DIV, "div", kPs, kPd, kSs, kSd)
US_FOUR(MIN, "min", kNone, kNone, kNone, kNone)
US_FOUR(MAX, "max", kNone, kNone, kNone, kNone)
US_SSE_FP1(SQRTPS, "sqrtps", kNone)
US_SSE_FP1(SQRTPD, "sqrtpd", kNone)
US_SSE_FP(SQRTSS, "sqrtss", kNone)
US_SSE_FP(SQRTSD, "sqrtsd", kNone)
US_SSE_FP(ADDSUBPS, "addsubps", kPs)
US_SSE_FP(ADDSUBPD, "addsubpd", kPd)
US_SSE_FP(HADDPS, "haddps", kPs)
US_SSE_FP(HADDPD, "haddpd", kPd)
US_SSE_FP(HSUBPS, "hsubps", kPs)
US_SSE_FP(HSUBPD, "hsubpd", kPd)

// Dot products, step by step as SDM 2 DPPS and DPPD describe them. Hosts may differ in which of
// several NaNs comes out of the sums; here every sum is an ADDPS (ADDPD) whose first operand is the
// one with the lower element. What the immediate leaves out is zero before multiplying, so it
// raises nothing. An unmasked exception ends the careful variant at the step that found it: the
// step's result is returned, for end_checked to see and drop.
template <bool kChecked>
struct DotSingle : Raising<Tiny::kByStep> {
  static void f(Cpu& c, const Op* op, V s) {
    set_xmm(c, op->dst, dot(c, get_xmm(c, op->dst), s, imm8(op)));
  }
  static V dot(const Cpu& c, V d, V s, uint8_t imm) {
    uint32_t raised = 0;
    const V bits = _mm_set_epi32(8, 4, 2, 1);
    const V in = _mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32(imm >> 4), bits), bits);
    const V out = _mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32(imm), bits), bits);
    const V product = F_MULPS::f(_mm_and_si128(d, in), _mm_and_si128(s, in));
    if (kChecked && step_raised(c, product, Tiny::kPs, false, raised)) return product;
    const V even = _mm_move_epi64(_mm_shuffle_epi32(product, 0xe8));
    const V odd = _mm_move_epi64(_mm_shuffle_epi32(product, 0xfd));
    const V pairs = F_ADDPS::f(even, odd);
    if (kChecked && step_raised(c, pairs, Tiny::kPs, false, raised)) return pairs;
    const V sum = F_ADDSS::f(pairs, _mm_shuffle_epi32(pairs, 0x55));
    if (kChecked && step_raised(c, sum, Tiny::kSs, true, raised)) return sum;
    return _mm_and_si128(_mm_shuffle_epi32(sum, 0), out);
  }
};
template <bool kChecked>
struct DotDouble : Raising<Tiny::kByStep> {
  static void f(Cpu& c, const Op* op, V s) {
    set_xmm(c, op->dst, dot(c, get_xmm(c, op->dst), s, imm8(op)));
  }
  static V dot(const Cpu& c, V d, V s, uint8_t imm) {
    uint32_t raised = 0;
    const V mask = _mm_set_epi32(2, 2, 1, 1);
    const V in = _mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32(imm >> 4), mask), mask);
    const V out = _mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32(imm), mask), mask);
    const V product = F_MULPD::f(_mm_and_si128(d, in), _mm_and_si128(s, in));
    if (kChecked && step_raised(c, product, Tiny::kPd, false, raised)) return product;
    const V sum = F_ADDSD::f(product, _mm_unpackhi_epi64(product, product));
    if (kChecked && step_raised(c, sum, Tiny::kSd, true, raised)) return sum;
    return _mm_and_si128(_mm_unpacklo_epi64(sum, sum), out);
  }
};
template <template <bool> class Dot>
constexpr Forms dot_forms() {
  return with_checked(forms<X128, Whole<Dot<false>>>(), forms<X128, Whole<Dot<true>>>());
}

// ROUND: immediate bits 3:0 count; one handler each.
US_IMMEDIATE_BODY(ROUNDPS, "roundps")
US_IMMEDIATE_BODY(ROUNDPD, "roundpd")
US_IMMEDIATE_BODY(ROUNDSS, "roundss")
US_IMMEDIATE_BODY(ROUNDSD, "roundsd")

template <class L, template <int> class F, size_t... kImm>
constexpr std::array<Forms, 16> round_forms(std::index_sequence<kImm...>) {
  return {forms<L, Binary<F<static_cast<int>(kImm)>>>()...};
}
template <class L, template <int> class F>
constexpr std::array<Forms, 16> kRound = round_forms<L, F>(std::make_index_sequence<16>());

#define US_FOUR_ROWS(op)                                            \
  US_ROW_XX(op##PS, X128, Binary), US_ROW_XX(op##PD, X128, Binary), \
      US_ROW_XX(op##SS, X32, Binary), US_ROW_XX(op##SD, X64, Binary)

constexpr Row round_row(ZydisMnemonic m, const std::array<Forms, 16>& f) {
  return {m, Kind::kXmm, Kind::kXmm, {}, 0, Unit::kSse, f.data(), 15};
}

constexpr Row kRows[] = {
    US_FOUR_ROWS(ADD),
    US_FOUR_ROWS(SUB),
    US_FOUR_ROWS(MUL),
    US_FOUR_ROWS(DIV),
    US_FOUR_ROWS(MIN),
    US_FOUR_ROWS(MAX),
    US_ROW_XX(SQRTPS, X128, Unary),
    US_ROW_XX(SQRTPD, X128, Unary),
    US_ROW_XX(SQRTSS, X32, Binary),
    US_ROW_XX(SQRTSD, X64, Binary),
    US_ROW_XX(ADDSUBPS, X128, Binary),
    US_ROW_XX(ADDSUBPD, X128, Binary),
    US_ROW_XX(HADDPS, X128, Binary),
    US_ROW_XX(HADDPD, X128, Binary),
    US_ROW_XX(HSUBPS, X128, Binary),
    US_ROW_XX(HSUBPD, X128, Binary),
    {ZYDIS_MNEMONIC_DPPS, Kind::kXmm, Kind::kXmm, dot_forms<DotSingle>()},
    {ZYDIS_MNEMONIC_DPPD, Kind::kXmm, Kind::kXmm, dot_forms<DotDouble>()},
    round_row(ZYDIS_MNEMONIC_ROUNDPS, kRound<X128, F_ROUNDPS>),
    round_row(ZYDIS_MNEMONIC_ROUNDPD, kRound<X128, F_ROUNDPD>),
    round_row(ZYDIS_MNEMONIC_ROUNDSS, kRound<X32, F_ROUNDSS>),
    round_row(ZYDIS_MNEMONIC_ROUNDSD, kRound<X64, F_ROUNDSD>),
};

}  // namespace

std::span<const Row> arithmetic_rows() { return kRows; }

}  // namespace us::hv::sse
