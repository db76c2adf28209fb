// Shuffles, blends, byte shifts and insertions steered by an immediate or by XMM0.
#include "hv/cpu/sse_shuffle_bodies.h"

namespace us::hv::sse {
namespace {

struct F_PSHUFD : Silent {
  static V f(V s, uint8_t imm) { return shuffle(s, kPshufd[imm]); }
};
struct F_PSHUFLW : Silent {
  static V f(V s, uint8_t imm) { return shuffle(s, kPshuflw[imm]); }
};
struct F_PSHUFHW : Silent {
  static V f(V s, uint8_t imm) { return shuffle(s, kPshufhw[imm]); }
};
struct F_SHUFPS : Silent {
  static V f(V d, V s, uint8_t imm) {
    return _mm_unpacklo_epi64(shuffle(d, kPshufd[imm]), shuffle(s, kPshufd[imm >> 4]));
  }
};
struct F_SHUFPD : Silent {
  static V f(V d, V s, uint8_t imm) {
    const V low = (imm & 1) != 0 ? _mm_unpackhi_epi64(d, d) : d;
    const V high = (imm & 2) != 0 ? _mm_unpackhi_epi64(s, s) : s;
    return _mm_unpacklo_epi64(low, high);
  }
};

struct F_PSLLDQ : Silent {
  static V f(V d, uint8_t imm) { return shift_bytes_left(d, imm); }
};
struct F_PSRLDQ : Silent {
  static V f(V d, uint8_t imm) { return shift_bytes_right(d, imm); }
};
struct F_PALIGNR : Silent {
  static V f(V d, V s, uint8_t imm) {
    if (imm >= 16) return shift_bytes_right(d, imm - 16u);
    return _mm_or_si128(shift_bytes_right(s, imm), shift_bytes_left(d, 16u - imm));
  }
};

// Bit i of the immediate takes element i from the source.
inline V blend(V d, V s, V mask) {
  return _mm_or_si128(_mm_and_si128(mask, s), _mm_andnot_si128(mask, d));
}
struct F_PBLENDW : Silent {
  static V f(V d, V s, uint8_t imm) {
    const V bits = _mm_set_epi16(128, 64, 32, 16, 8, 4, 2, 1);
    return blend(d, s, _mm_cmpeq_epi16(_mm_and_si128(_mm_set1_epi16(imm), bits), bits));
  }
};
struct F_BLENDPS : Silent {
  static V f(V d, V s, uint8_t imm) {
    const V bits = _mm_set_epi32(8, 4, 2, 1);
    return blend(d, s, _mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32(imm), bits), bits));
  }
};
struct F_BLENDPD : Silent {
  static V f(V d, V s, uint8_t imm) {
    const V bits = _mm_set_epi32(2, 2, 1, 1);
    return blend(d, s, _mm_cmpeq_epi32(_mm_and_si128(_mm_set1_epi32(imm), bits), bits));
  }
};

// The sign of each element of XMM0 chooses.
struct F_PBLENDVB : Silent {
  static void f(Cpu& c, const Op* op, V s) {
    set_xmm(c, op->dst, _mm_blendv_epi8(get_xmm(c, op->dst), s, get_xmm(c, 0)));
  }
};
struct F_BLENDVPS : Silent {
  static void f(Cpu& c, const Op* op, V s) {
    const V mask = _mm_srai_epi32(get_xmm(c, 0), 31);
    set_xmm(c, op->dst, blend(get_xmm(c, op->dst), s, mask));
  }
};
struct F_BLENDVPD : Silent {
  static void f(Cpu& c, const Op* op, V s) {
    const V mask = _mm_srai_epi32(_mm_shuffle_epi32(get_xmm(c, 0), 0xf5), 31);
    set_xmm(c, op->dst, blend(get_xmm(c, op->dst), s, mask));
  }
};

// INSERTPS: bits 7:6 choose the source's element (of a register; memory has just one), 5:4 where it
// goes, 3:0 what becomes zero.
inline V insert_single(V d, uint32_t value, uint8_t imm) {
  Xmm x;
  _mm_store_si128(reinterpret_cast<V*>(&x), d);
  x.d[(imm >> 4) & 3] = value;
  for (unsigned i = 0; i < 4; ++i)
    if ((imm >> i & 1) != 0) x.d[i] = 0;
  return _mm_load_si128(reinterpret_cast<const V*>(&x));
}
struct F_InsertFromRegister : Silent {
  static V f(V d, V s, uint8_t imm) {
    const V chosen = shuffle(s, kPshufd[imm >> 6]);
    return insert_single(d, static_cast<uint32_t>(_mm_cvtsi128_si32(chosen)), imm);
  }
};
struct F_InsertFromMemory : Silent {
  static V f(V d, V s, uint8_t imm) {
    return insert_single(d, static_cast<uint32_t>(_mm_cvtsi128_si32(s)), imm);
  }
};

// Sums of absolute differences of a run of four bytes of the source, chosen by imm[1:0], and eight
// sliding runs of the destination from imm[2] on.
template <int kImm>
V mpsadbw(V d, V s) {
  return _mm_mpsadbw_epu8(d, s, kImm);
}
struct F_MPSADBW : Silent {
  static V f(V d, V s, uint8_t imm) {
    using Function = V (*)(V, V);
    static constexpr Function kBy[8] = {mpsadbw<0>, mpsadbw<1>, mpsadbw<2>, mpsadbw<3>,
                                        mpsadbw<4>, mpsadbw<5>, mpsadbw<6>, mpsadbw<7>};
    return kBy[imm & 7](d, s);
  }
};

// The destination is the source too: PSLLDQ and PSRLDQ have no other.
struct DestinationSource {
  using Value = V;
  static constexpr bool kMemory = false;
  static V from_register(const Cpu& c, const Op* op) { return get_xmm(c, op->dst); }
};

constexpr Row kRows[] = {
    US_ROW_XX(PSHUFD, X128, UnaryImm),
    US_ROW_XX(PSHUFLW, X128, UnaryImm),
    US_ROW_XX(PSHUFHW, X128, UnaryImm),
    US_ROW_XX(SHUFPS, X128, BinaryImm),
    US_ROW_XX(SHUFPD, X128, BinaryImm),
    US_ROW_XX(PALIGNR, X128, BinaryImm),
    {ZYDIS_MNEMONIC_PSLLDQ, Kind::kXmm, Kind::kImm, forms<DestinationSource, UnaryImm<F_PSLLDQ>>()},
    {ZYDIS_MNEMONIC_PSRLDQ, Kind::kXmm, Kind::kImm, forms<DestinationSource, UnaryImm<F_PSRLDQ>>()},
    US_ROW_XX(PBLENDW, X128, BinaryImm),
    US_ROW_XX(BLENDPS, X128, BinaryImm),
    US_ROW_XX(BLENDPD, X128, BinaryImm),
    US_ROW_XX(PBLENDVB, X128, Whole),
    US_ROW_XX(BLENDVPS, X128, Whole),
    US_ROW_XX(BLENDVPD, X128, Whole),
    {ZYDIS_MNEMONIC_INSERTPS, Kind::kXmm, Kind::kXmm,
     split_forms(forms<X128, BinaryImm<F_InsertFromRegister>>(),
                 forms<X32, BinaryImm<F_InsertFromMemory>>())},
    US_ROW_XX(MPSADBW, X128, BinaryImm),
};

}  // namespace

std::span<const Row> shuffle_rows() { return kRows; }

}  // namespace us::hv::sse
