// The scanner's inner loop: runs of short TNT and PAD bytes, long TNTs and TIPs, a 64-bit word at a
// time. It ends at the first packet of another kind, which the scanner parses by itself. Two forms:
// one for processors with a fast PEXT, one for all.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <emmintrin.h>
#include <tmmintrin.h>

#include "ipt/packets.h"

namespace us::ipt {

// A step begins before `limit`, and reads at most this many bytes past where it begins: a word of
// TNTs, then an opcode and a word of payload.
constexpr ptrdiff_t kKernelReach = 32;

inline constexpr uint8_t kPsbPacket[kPsbBytes] = {0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82,
                                                  0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82};

namespace kernel {

constexpr uint64_t kOnes = 0x0101010101010101;

inline uint64_t load64(const uint8_t* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// All ones in bytes equal to kExtended.
inline uint64_t extended_bytes(__m128i bytes) {
  const __m128i found = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(opcode::kExtended));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(found));
}

// In each byte that is a PAD or a short TNT: ones where branches are (below the stop bit, above bit
// 0). Looked up by nibbles: a stop bit in the high one has branches in all of the low one.
inline uint64_t branch_mask(__m128i bytes) {
  const __m128i nibble = _mm_set1_epi8(0x0f);
  const __m128i of_high = _mm_setr_epi8(0, 0x0e, 0x1e, 0x1e, 0x3e, 0x3e, 0x3e, 0x3e, 0x7e, 0x7e,
                                        0x7e, 0x7e, 0x7e, 0x7e, 0x7e, 0x7e);
  const __m128i of_low = _mm_setr_epi8(0, 0, 0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 6, 6, 6, 6);
  const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
  const __m128i low = _mm_and_si128(bytes, nibble);
  const __m128i mask = _mm_or_si128(_mm_shuffle_epi8(of_high, high), _mm_shuffle_epi8(of_low, low));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(mask));
}

inline unsigned zero_bytes(uint64_t plain_word) {
  // In a plain word every non-zero byte is 4 or more, so its bits 7:1 give it away.
  const uint64_t some = ((plain_word & (kOnes * 0x7f)) + (kOnes * 0x7f)) | plain_word;
  return 8 - static_cast<unsigned>(std::popcount(some & (kOnes << 7)));
}

// The bits of `word` where `mask` has ones, moved together. As an instruction of its own so that
// the rest is built for the floor (x86-64-v2); only reached when has_fast_pext().
inline uint64_t extract_bits(uint64_t word, uint64_t mask) {
  uint64_t bits;
  asm("pextq %2, %1, %0" : "=r"(bits) : "r"(word), "rm"(mask));
  return bits;
}

// Hands over the branches of the PADs and short TNTs that `these` has ones for.
template <bool kPext, class Fast>
[[gnu::always_inline]] inline void append_plain(uint64_t word, __m128i bytes, uint64_t these,
                                                Fast& fast) {
  if constexpr (kPext) {
    // The first byte holds the oldest branches: it has to end up highest.
    const uint64_t mask = __builtin_bswap64(branch_mask(bytes) & these);
    fast.tnt(extract_bits(__builtin_bswap64(word), mask),
             static_cast<unsigned>(std::popcount(mask)));
  } else {
    uint64_t bits = 0;
    unsigned n = 0;
    for (word &= these; word != 0; word >>= 8) {
      const unsigned byte = word & 0xff;
      if (byte == 0) continue;
      const unsigned count = 30 - static_cast<unsigned>(std::countl_zero(byte));
      bits = (bits << count) | ((byte >> 1) ^ (1u << count));
      n += count;
    }
    fast.tnt(bits, n);
  }
}

// Payload bytes of a TIP by its first byte; 0 for all else, and for the forms left to the parser
// (suppressed, and the full eight bytes that only addresses that are not canonical need).
constexpr std::array<uint8_t, 256> kTipPayload = [] {
  std::array<uint8_t, 256> table{};
  for (unsigned ip_bytes = 1; ip_bytes <= 4; ++ip_bytes) {
    table[opcode::kTip | ip_bytes << 5] = static_cast<uint8_t>(ip_payload_bytes(ip_bytes));
  }
  return table;
}();

// A long TNT at `at`; false when it is none (the parser then says what it is).
template <class Fast>
[[gnu::always_inline]] inline bool take_tnt64(const uint8_t* at, Fast& fast) {
  if (at[1] != extended::kTnt64) return false;
  const uint64_t payload = load64(at) >> 16;
  if (payload <= 1) return false;
  const unsigned n = 63 - static_cast<unsigned>(std::countl_zero(payload));
  fast.tnt(payload ^ (1ull << n), n);
  return true;
}

}  // namespace kernel

// Scans from `at` while steps begin before `limit`, which leaves room in `fast`; returns where it
// stopped. `fast` and `last_ip` live in registers meanwhile.
template <bool kPext, bool kPads, class Fast>
const uint8_t* scan_plain(const uint8_t* at, const uint8_t* limit, uint64_t& last_ip_out,
                          Fast& fast_out) {
  Fast fast = fast_out;
  uint64_t last_ip = last_ip_out;
  while (at < limit) {
    // From `at` to the next is one chain of dependent instructions, so it is kept short: even bytes
    // are PADs, short TNTs or kExtended, which is rare and looked for beside the chain.
    const uint64_t word = kernel::load64(at);
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
    const uint64_t odd = word & kernel::kOnes;
    const uint64_t extended = kernel::extended_bytes(bytes);
    const uint64_t before_odd = (odd - 1) & ~odd;
    if ((extended & before_odd) != 0) [[unlikely]] {
      const uint64_t before = (extended - 1) & ~extended;
      const unsigned n = static_cast<unsigned>(std::countr_zero(extended)) / 8;
      kernel::append_plain<kPext>(word, bytes, before, fast);
      if constexpr (kPads) fast.pads(kernel::zero_bytes(word & before) - (8 - n));
      at += n;
      if (!kernel::take_tnt64(at, fast)) break;
      at += kTnt64Bytes;
      continue;
    }
    if (odd == 0) {
      kernel::append_plain<kPext>(word, bytes, ~0ull, fast);
      if constexpr (kPads) fast.pads(kernel::zero_bytes(word));
      at += 8;
      continue;
    }
    const unsigned shift = static_cast<unsigned>(std::countr_zero(odd));
    kernel::append_plain<kPext>(word, bytes, before_odd, fast);
    if constexpr (kPads) fast.pads(kernel::zero_bytes(word & before_odd) - (8 - shift / 8));
    at += shift / 8;
    const uint64_t op = (word >> shift) & 0xff;
    const unsigned payload = kernel::kTipPayload[op];
    if (payload == 0) break;
    // Sign extension is right for all of these forms: the mask drops it where it does not belong.
    const uint64_t ip = sign_extend_48(kernel::load64(at + 1));
    last_ip ^= (last_ip ^ ip) & kIpPayloadMask[op >> 5];
    fast.tip(last_ip);
    at += 1 + payload;
  }
  last_ip_out = last_ip;
  fast_out = fast;
  return at;
}

}  // namespace us::ipt
