// The scanner's inner loop: runs of short TNT and PAD bytes, long TNTs and TIPs, a 64-bit word at a
// time. It ends at the first packet of another kind, which the scanner parses by itself. Two forms:
// one for processors with a fast PEXT, one for all.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

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

// Bit 0 is set in bytes equal to kExtended, exactly up to the first such byte.
inline uint64_t extended_bytes(uint64_t word) {
  const uint64_t x = word ^ (kOnes * opcode::kExtended);
  return ((x - kOnes) & ~x & (kOnes << 7)) >> 7;
}

// In each byte of PADs and short TNTs: ones where branches are (below the stop bit, above bit 0).
inline uint64_t branch_mask(uint64_t word) {
  word |= (word >> 1) & (kOnes * 0x7f);
  word |= (word >> 2) & (kOnes * 0x3f);
  word |= (word >> 4) & (kOnes * 0x0f);
  return (word >> 1) & (kOnes * 0x7e);
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

// Hands over the branches of a word of PADs and short TNTs.
template <bool kPext, class Fast>
[[gnu::always_inline]] inline void append_plain(uint64_t word, Fast& fast) {
  if constexpr (kPext) {
    // The first byte holds the oldest branches: it has to end up highest.
    const uint64_t swapped = __builtin_bswap64(word);
    const uint64_t mask = branch_mask(swapped);
    fast.tnt(extract_bits(swapped, mask), static_cast<unsigned>(std::popcount(mask)));
  } else {
    uint64_t bits = 0;
    unsigned n = 0;
    for (; word != 0; word >>= 8) {
      const unsigned byte = word & 0xff;
      if (byte == 0) continue;
      const unsigned count = 30 - static_cast<unsigned>(std::countl_zero(byte));
      bits = (bits << count) | ((byte >> 1) ^ (1u << count));
      n += count;
    }
    fast.tnt(bits, n);
  }
}

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

// Scans from `at` while steps begin before `limit`; returns where it stopped. `fast` and `last_ip`
// live in registers meanwhile.
template <bool kPext, bool kPads, class Fast>
const uint8_t* scan_plain(const uint8_t* at, const uint8_t* limit, uint64_t& last_ip_out,
                          Fast& fast_out) {
  Fast fast = fast_out;
  uint64_t last_ip = last_ip_out;
  while (at < limit && !fast.full()) {
    const uint64_t word = kernel::load64(at);
    // From `at` to the next is one chain of dependent instructions, so it is kept short: even bytes
    // are PADs, short TNTs or kExtended, which is rare and looked for beside the chain.
    const uint64_t odd = word & kernel::kOnes;
    const uint64_t up_to_odd = odd ^ (odd - 1);
    const uint64_t extended = kernel::extended_bytes(word);
    if ((extended & up_to_odd) != 0) [[unlikely]] {
      const uint64_t plain = word & ((extended ^ (extended - 1)) >> 1);
      const unsigned before = static_cast<unsigned>(std::countr_zero(extended)) / 8;
      kernel::append_plain<kPext>(plain, fast);
      if constexpr (kPads) fast.pads(kernel::zero_bytes(plain) - (8 - before));
      at += before;
      if (!kernel::take_tnt64(at, fast)) break;
      at += kTnt64Bytes;
      continue;
    }
    if (odd == 0) {
      kernel::append_plain<kPext>(word, fast);
      if constexpr (kPads) fast.pads(kernel::zero_bytes(word));
      at += 8;
      continue;
    }
    const unsigned shift = static_cast<unsigned>(std::countr_zero(odd));
    const uint64_t plain = word & (up_to_odd >> 1);
    kernel::append_plain<kPext>(plain, fast);
    if constexpr (kPads) fast.pads(kernel::zero_bytes(plain) - (8 - shift / 8));
    at += shift / 8;
    const uint64_t op = word >> shift;
    const unsigned ip_bytes = (op >> 5) & 7;
    const unsigned payload = ip_payload_bytes(ip_bytes);
    if ((op & opcode::kIpMask) != opcode::kTip || payload == 0) break;
    last_ip = expand_ip(ip_bytes, kernel::load64(at + 1), last_ip);
    fast.tip(last_ip);
    at += 1 + payload;
  }
  last_ip_out = last_ip;
  fast_out = fast;
  return at;
}

}  // namespace us::ipt
