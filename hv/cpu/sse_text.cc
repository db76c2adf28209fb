// SSE4.2 text instructions PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. The host computes the bit
// mask ("IntRes2") of an aggregation; index, mask form and flags follow from it. SDM 2 4.1.
#include <utility>

#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {
namespace {

// Immediate bits 5:0 decide the bit mask; bit 6 what is made of it; bit 7 is ignored.
constexpr unsigned kAggregations = 64;
constexpr uint8_t kWords = 1, kMostSignificant = 0x40, kWideMask = 0x40;

using Compare = V (*)(V a, int a_length, V b, int b_length);
template <int kImm>
V compare(V a, int a_length, V b, int b_length) {
  return _mm_cmpestrm(a, a_length, b, b_length, kImm);
}
struct Compares {
  Compare by_imm[kAggregations];
};
template <size_t... kImm>
constexpr Compares make_compares(std::index_sequence<kImm...>) {
  return {{compare<static_cast<int>(kImm)>...}};
}
constexpr auto kCompares = make_compares(std::make_index_sequence<kAggregations>());

unsigned elements(uint8_t imm) { return (imm & kWords) != 0 ? 8 : 16; }

// |value|, at most `most`. SDM 2 4.1.3: the absolute value saturates.
int explicit_length(uint64_t reg, bool wide, unsigned most) {
  const int64_t value =
      wide ? static_cast<int64_t>(reg)
           : static_cast<int64_t>(static_cast<int32_t>(static_cast<uint32_t>(reg)));
  const uint64_t size = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  return static_cast<int>(size < most ? size : most);
}

// Elements before the first zero one.
int implicit_length(V v, uint8_t imm) {
  const V zero = _mm_setzero_si128();
  const V equal = (imm & kWords) != 0 ? _mm_cmpeq_epi16(v, zero) : _mm_cmpeq_epi8(v, zero);
  const unsigned mask = static_cast<unsigned>(_mm_movemask_epi8(equal)) | 0x10000u;
  const int bytes = __builtin_ctz(mask);
  return (imm & kWords) != 0 ? bytes / 2 : bytes;
}

void store_index(Cpu& c, uint32_t bits, uint8_t imm) {
  uint32_t index = elements(imm);
  if (bits != 0)
    index = (imm & kMostSignificant) != 0 ? 31 - static_cast<uint32_t>(__builtin_clz(bits))
                                          : static_cast<uint32_t>(__builtin_ctz(bits));
  c.regs[kRcx] = index;
}

void store_mask(Cpu& c, uint32_t bits, uint8_t imm) {
  Xmm x = {};
  if ((imm & kWideMask) == 0) {
    x.q[0] = bits;
  } else {
    for (unsigned i = 0; i < elements(imm); ++i) {
      const bool set = (bits >> i & 1) != 0;
      if ((imm & kWords) != 0)
        x.w[i] = set ? 0xffff : 0;
      else
        x.b[i] = set ? 0xff : 0;
    }
  }
  c.xmm[0] = x;
}

template <bool kExplicit, bool kIndex>
struct Text : Silent {
  [[gnu::noinline]] static void f(Cpu& c, const Op* op, V b) {
    const V a = get_xmm(c, op->dst);
    const uint8_t imm = imm8(op);
    const unsigned most = elements(imm);
    int a_length, b_length;
    if constexpr (kExplicit) {
      const bool wide = (op->imm & kImmRexW) != 0;
      a_length = explicit_length(c.regs[kRax], wide, most);
      b_length = explicit_length(c.regs[kRdx], wide, most);
    } else {
      a_length = implicit_length(a, imm);
      b_length = implicit_length(b, imm);
    }
    const V mask = kCompares.by_imm[imm & (kAggregations - 1)](a, a_length, b, b_length);
    const uint32_t bits = static_cast<uint32_t>(_mm_cvtsi128_si32(mask));
    if constexpr (kIndex)
      store_index(c, bits, imm);
    else
      store_mask(c, bits, imm);
    set_arithmetic_flags(c, (bits != 0 ? flag::kCf : 0) |
                                (static_cast<unsigned>(b_length) < most ? flag::kZf : 0) |
                                (static_cast<unsigned>(a_length) < most ? flag::kSf : 0) |
                                ((bits & 1) != 0 ? flag::kOf : 0));
  }
};
using F_PCMPESTRI = Text<true, true>;
using F_PCMPESTRM = Text<true, false>;
using F_PCMPISTRI = Text<false, true>;
using F_PCMPISTRM = Text<false, false>;

constexpr Row kRows[] = {
    US_ROW_XX(PCMPESTRI, X128Any, Whole),
    US_ROW_XX(PCMPESTRM, X128Any, Whole),
    US_ROW_XX(PCMPISTRI, X128Any, Whole),
    US_ROW_XX(PCMPISTRM, X128Any, Whole),
};

}  // namespace

std::span<const Row> text_rows() { return kRows; }

}  // namespace us::hv::sse
