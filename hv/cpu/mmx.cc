// Packed-integer arithmetic on MMX registers (moves are in sse_move.cc, conversions in
// sse_convert.cc).
#include "hv/cpu/mmx_bodies.h"
#include "hv/cpu/sse_integer_list.h"
#include "hv/cpu/sse_shuffle_bodies.h"

namespace us::hv::sse {
namespace {

struct F_PSHUFB : Silent {  // three bits of each control byte choose, not four
  static V f(V d, V s) {
    return _mm_shuffle_epi8(d, _mm_and_si128(s, _mm_set1_epi8(static_cast<char>(0x87))));
  }
};
struct F_PSHUFW : Silent {
  static V f(V s, uint8_t imm) { return shuffle(s, kPshuflw[imm]); }
};
struct F_PALIGNR : Silent {
  static V f(V d, V s, uint8_t imm) { return shift_bytes_right(_mm_unpacklo_epi64(s, d), imm); }
};
struct F_PINSRW : Silent {
  static V f(V d, uint16_t value, uint8_t imm) {
    const unsigned shift = (imm & 3u) * 16;
    return from64((low64(d) & ~(uint64_t{0xffff} << shift)) | uint64_t{value} << shift);
  }
};
struct F_PEXTRW : Silent {
  static uint32_t f(V s, uint8_t imm) {
    return static_cast<uint16_t>(low64(s) >> ((imm & 3u) * 16));
  }
};

constexpr Row row(ZydisMnemonic m, Forms f) {
  return {m, Kind::kMmx, Kind::kMmx, f, 0, Unit::kMmx};
}

#define US_BINARY_ROW(name, text) row(ZYDIS_MNEMONIC_##name, forms<M64, MmxBinary<F_##name>>()),
#define US_UNARY_ROW(name, text) row(ZYDIS_MNEMONIC_##name, forms<M64, MmxUnary<F_##name>>()),
#define US_JOINED_ROW(name, text) row(ZYDIS_MNEMONIC_##name, forms<M64, MmxJoined<F_##name>>()),
#define US_UNPACK_ROW(name, text) row(ZYDIS_MNEMONIC_##name, forms<M32, MmxBinary<F_##name>>()),
#define US_SHIFT_ROWS(name, text)                                \
  row(ZYDIS_MNEMONIC_##name, forms<M64, MmxBinary<F_##name>>()), \
      {ZYDIS_MNEMONIC_##name,                                    \
       Kind::kMmx,                                               \
       Kind::kImm,                                               \
       forms<ImmSource, MmxBinary<F_##name>>(),                  \
       0,                                                        \
       Unit::kMmx},

constexpr Row kRows[] = {
    // clang-format off
    US_INTEGER_BINARY(US_BINARY_ROW)
    US_INTEGER_UNARY(US_UNARY_ROW)
    US_INTEGER_SHIFT(US_SHIFT_ROWS)
    US_INTEGER_JOINED(US_JOINED_ROW)
    US_INTEGER_UNPACK_LOW(US_UNPACK_ROW)
    // clang-format on
    row(ZYDIS_MNEMONIC_PUNPCKHBW, forms<M64, MmxHigh<F_PUNPCKLBW>>()),
    row(ZYDIS_MNEMONIC_PUNPCKHWD, forms<M64, MmxHigh<F_PUNPCKLWD>>()),
    row(ZYDIS_MNEMONIC_PUNPCKHDQ, forms<M64, MmxHigh<F_PUNPCKLDQ>>()),
    row(ZYDIS_MNEMONIC_PSHUFB, forms<M64, MmxBinary<F_PSHUFB>>()),
    row(ZYDIS_MNEMONIC_PSHUFW, forms<M64, MmxUnaryImm<F_PSHUFW>>()),
    row(ZYDIS_MNEMONIC_PALIGNR, forms<M64, MmxBinaryImm<F_PALIGNR>>()),
    {ZYDIS_MNEMONIC_PINSRW, Kind::kMmx, Kind::kGpr,
     forms<GprSource<uint16_t>, MmxBinaryImm<F_PINSRW>>(), 0, Unit::kMmx},
    {ZYDIS_MNEMONIC_PEXTRW, Kind::kGpr, Kind::kMmx, forms<M64, MmxToGprImm<F_PEXTRW>>(), 0,
     Unit::kMmx},
};

}  // namespace

std::span<const Row> mmx_rows() { return kRows; }

}  // namespace us::hv::sse
