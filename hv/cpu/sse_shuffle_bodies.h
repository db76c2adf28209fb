// Shuffles whose immediate is known only at run time, as byte shuffles by tabulated controls.
#pragma once

#include <array>

#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {

// A PSHUFB control for every immediate; bytes of 0x80 give zero.
struct Control {
  alignas(16) uint8_t b[16];
};
template <size_t kCount, class Choose>
constexpr std::array<Control, kCount> make_controls(Choose choose) {
  std::array<Control, kCount> table{};
  for (unsigned imm = 0; imm < kCount; ++imm)
    for (unsigned i = 0; i < 16; ++i) table[imm].b[i] = static_cast<uint8_t>(choose(imm, i));
  return table;
}
inline V shuffle(V v, const Control& control) {
  return _mm_shuffle_epi8(v, _mm_load_si128(reinterpret_cast<const V*>(control.b)));
}

// Four two-bit selectors in `imm`; element i/size of `size` bytes, starting `from` bytes up.
constexpr unsigned pick(unsigned imm, unsigned i, unsigned size, unsigned from) {
  const unsigned element = (i - from) / size;
  return from + ((imm >> (2 * element)) & 3) * size + i % size;
}
inline constexpr auto kPshufd =
    make_controls<256>([](unsigned imm, unsigned i) { return pick(imm, i, 4, 0); });
inline constexpr auto kPshuflw =
    make_controls<256>([](unsigned imm, unsigned i) { return i < 8 ? pick(imm, i, 2, 0) : i; });
inline constexpr auto kPshufhw =
    make_controls<256>([](unsigned imm, unsigned i) { return i < 8 ? i : pick(imm, i, 2, 8); });

// Bytes 0-15 between two runs of bytes that give zero: a window into it is a byte shift.
inline constexpr auto kByteShift = [] {
  std::array<uint8_t, 48> window{};
  for (unsigned i = 0; i < 48; ++i)
    window[i] = static_cast<uint8_t>(i >= 16 && i < 32 ? i - 16 : 0x80);
  return window;
}();
inline V shift_bytes(V v, unsigned start) {  // start 0-32
  return _mm_shuffle_epi8(v,
                          _mm_loadu_si128(reinterpret_cast<const V*>(kByteShift.data() + start)));
}
inline V shift_bytes_right(V v, unsigned n) { return shift_bytes(v, 16 + (n < 16 ? n : 16)); }
inline V shift_bytes_left(V v, unsigned n) { return shift_bytes(v, 16 - (n < 16 ? n : 16)); }

}  // namespace us::hv::sse
