// The scanner's inner loop: runs of short TNT and PAD bytes with the TIPs between them, and long
// TNTs. It ends at the first packet of another kind, which the scanner parses by itself. Two forms:
// one for processors with AVX2 and a fast PEXT, one for all.
//
// A program's trace is mostly one or two short TNTs, a TIP, and so on. Taking branches out of each
// such run costs more than finding it, so the runs are only put together, and branches are taken
// out of eight bytes at a time.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <immintrin.h>

#include "ipt/packets.h"

namespace us::ipt {

// A step begins before `limit`, and reads at most this many bytes past where it begins, and one
// byte before.
constexpr ptrdiff_t kKernelReach = 48;

inline constexpr uint8_t kPsbPacket[kPsbBytes] = {0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82,
                                                  0x02, 0x82, 0x02, 0x82, 0x02, 0x82, 0x02, 0x82};

namespace kernel {

constexpr uint64_t kOnes = 0x0101010101010101;
constexpr uint8_t kTipUpdate48 = opcode::kTip | 4 << 5;

inline uint64_t load64(const uint8_t* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

inline uint64_t low_word(__m128i both) { return static_cast<uint64_t>(_mm_cvtsi128_si64(both)); }
inline uint64_t high_word(__m128i both) { return low_word(_mm_unpackhi_epi64(both, both)); }

// All ones in bytes equal to kExtended.
inline uint64_t extended_bytes(const uint8_t* at) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  return low_word(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(opcode::kExtended)));
}

// In each byte that is a PAD or a short TNT: ones where branches are (below the stop bit, above bit
// 0). Looked up by nibbles: a stop bit in the high one has branches in all of the low one.
inline __m128i branch_mask(__m128i bytes) {
  const __m128i nibble = _mm_set1_epi8(0x0f);
  const __m128i of_high = _mm_setr_epi8(0, 0x0e, 0x1e, 0x1e, 0x3e, 0x3e, 0x3e, 0x3e, 0x7e, 0x7e,
                                        0x7e, 0x7e, 0x7e, 0x7e, 0x7e, 0x7e);
  const __m128i of_low = _mm_setr_epi8(0, 0, 0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 6, 6, 6, 6);
  const __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
  const __m128i low = _mm_and_si128(bytes, nibble);
  return _mm_or_si128(_mm_shuffle_epi8(of_high, high), _mm_shuffle_epi8(of_low, low));
}

inline unsigned zero_bytes(uint64_t plain_word) {
  // In a plain word every non-zero byte is 4 or more, so its bits 7:1 give it away.
  const uint64_t some = ((plain_word & (kOnes * 0x7f)) + (kOnes * 0x7f)) | plain_word;
  return 8 - static_cast<unsigned>(std::popcount(some & (kOnes << 7)));
}

// The bits of `word` where `mask` has ones, moved together. As an instruction of its own so that
// the rest is built for the floor (x86-64-v2); only reached when has_avx2_kernel().
inline uint64_t extract_bits(uint64_t word, uint64_t mask) {
  uint64_t bits;
  asm("pextq %2, %1, %0" : "=r"(bits) : "r"(word), "rm"(mask));
  return bits;
}

// The opposite: the low bits of `bits` where `mask` has ones.
inline uint64_t spread_bits(uint64_t bits, uint64_t mask) {
  uint64_t word;
  asm("pdepq %2, %1, %0" : "=r"(word) : "r"(bits), "rm"(mask));
  return word;
}

// Short TNTs and PADs put together.
struct PlainBytes {
  static constexpr ptrdiff_t kMost = 4096;  // bytes of trace that surely fit
  static constexpr ptrdiff_t kBeyond = 64;  // and what a step may write beyond them
  static constexpr ptrdiff_t kAtOnce = 16;

  uint8_t bytes[kMost + kBeyond + kAtOnce];
  uint8_t* end = bytes;

  ptrdiff_t room() const { return bytes + kMost - end; }
};

// The branches of eight PADs and short TNTs; the first byte of the trace, which holds the oldest,
// is the highest of `word` and of `mask`, its branch_mask.
template <bool kPext, class Fast>
[[gnu::always_inline]] inline void append_word(uint64_t word, uint64_t mask, Fast& fast) {
  if constexpr (kPext) {
    fast.tnt(extract_bits(word, mask), static_cast<unsigned>(std::popcount(mask)));
  } else {
    uint64_t bits = 0;
    unsigned n = 0;
    for (; word != 0; word <<= 8) {
      const auto byte = static_cast<unsigned>(word >> 56);
      if (byte == 0) continue;
      const unsigned count = 30 - static_cast<unsigned>(std::countl_zero(byte));
      bits = (bits << count) | ((byte >> 1) ^ (1u << count));
      n += count;
    }
    fast.tnt(bits, n);
  }
}

template <bool kPext, bool kPads, class Fast>
[[gnu::always_inline]] inline void append_all(PlainBytes& plain, Fast& fast_out) {
  Fast fast = fast_out;
  std::memset(plain.end, opcode::kPad, PlainBytes::kAtOnce);  // PADs hold no branches
  const __m128i backwards = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  unsigned pads = 0;
  const uint8_t* at = plain.bytes;
  for (; at < plain.end; at += PlainBytes::kAtOnce) {
    const __m128i both =
        _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)), backwards);
    const __m128i mask = branch_mask(both);
    append_word<kPext>(high_word(both), high_word(mask), fast);
    append_word<kPext>(low_word(both), low_word(mask), fast);
    if constexpr (kPads) pads += zero_bytes(high_word(both)) + zero_bytes(low_word(both));
  }
  if constexpr (kPads) fast.pads(pads - static_cast<unsigned>(at - plain.end));
  plain.end = plain.bytes;
  fast_out = fast;
}

// Hands over all that `plain` holds, and empties it.
template <bool kPads, class Fast>
[[gnu::target("avx2,bmi,bmi2")]] void hand_over_avx2(PlainBytes& plain, Fast& fast) {
  append_all<true, kPads>(plain, fast);
}
template <bool kPads, class Fast>
void hand_over(PlainBytes& plain, Fast& fast) {
  append_all<false, kPads>(plain, fast);
}

// By a TIP's first byte: the address bits that its payload replaces. 0 for all else, and for the
// forms that are not taken in stride (suppressed; update of 48 bits; the full eight bytes that only
// addresses that are not canonical need).
constexpr std::array<uint64_t, 256> kTipMask = [] {
  std::array<uint64_t, 256> table{};
  for (unsigned ip_bytes = 1; ip_bytes <= 3; ++ip_bytes) {
    table[opcode::kTip | ip_bytes << 5] = kIpPayloadMask[ip_bytes];
  }
  return table;
}();

// The address of a TIP in stride. Sign extension is right for all of these forms: the mask drops it
// where it does not belong. The payload is read with two bytes before it, so that one shift does.
inline uint64_t next_ip(uint64_t last_ip, const uint8_t* tip, uint64_t mask) {
  const auto ip = static_cast<uint64_t>(static_cast<int64_t>(load64(tip - 1)) >> 16);
  return last_ip ^ ((last_ip ^ ip) & mask);
}

// A long TNT at `at` as short ones, at most eight, at `to`; returns how many, 0 when it is none.
// Where its branches divide by six, the first of them has none: no packet, but right here.
inline ptrdiff_t shorten_tnt64(const uint8_t* at, uint8_t* to) {
  uint64_t word = load64(at) >> 16;
  if (at[0] != opcode::kExtended || at[1] != extended::kTnt64 || word <= 1) return 0;
  // Six bits a byte, the stop bit where it belongs in the highest.
  word = (word & 0x000000ffffff) | (word & 0xffffff000000) << 8;
  word = (word & 0x00000fff00000fff) | (word & 0x00fff00000fff000) << 4;
  word = (word & 0x003f003f003f003f) | (word & 0x0fc00fc00fc00fc0) << 2;
  word <<= 1;
  const unsigned top = 56 - (static_cast<unsigned>(std::countl_zero(word)) & 56);
  word |= (kOnes << 7) & ((1ull << top) - 1);
  word = __builtin_bswap64(word) >> (56 - top);
  std::memcpy(to, &word, sizeof word);
  return 1 + top / 8;
}

// At `at` is something not taken in stride. Takes it and returns its size if it may stand between
// runs and TIPs, else 0.
template <class Fast>
[[gnu::always_inline]] inline ptrdiff_t take_rarer(const uint8_t* at, uint64_t& last_ip,
                                                   uint8_t*& end, Fast& fast) {
  if (*at == kTipUpdate48) {
    last_ip = expand_ip(4, load64(at + 1), last_ip);
    fast.tip(last_ip);
    return 7;
  }
  const ptrdiff_t n = shorten_tnt64(at, end);
  end += n;
  return n == 0 ? 0 : kTnt64Bytes;
}

// Scans runs and TIPs while they begin before `limit`, which leaves room in `plain`. False: at `at`
// is something else.
template <class Fast>
bool scan_steps(const uint8_t*& at_out, const uint8_t* limit, uint64_t& last_ip_out,
                PlainBytes& plain, Fast& fast_out) {
  const uint8_t* at = at_out;
  uint64_t last_ip = last_ip_out;
  uint8_t* end = plain.end;
  Fast fast = fast_out;
  bool other = false;
  while (at < limit) {
    // From `at` to the next is one chain of dependent instructions, so it is kept short: even bytes
    // are PADs, short TNTs or kExtended, which is rare and looked for beside the chain; and a TIP's
    // payload is two bytes times IPBytes in the forms taken here.
    const uint64_t word = load64(at);
    std::memcpy(end, &word, sizeof word);
    const uint64_t odd = word & kOnes;
    const uint64_t extended = extended_bytes(at);
    if ((extended & (odd - 1) & ~odd) != 0) [[unlikely]] {
      at += std::countr_zero(extended) / 8;
      end += std::countr_zero(extended) / 8;
      const ptrdiff_t size = take_rarer(at, last_ip, end, fast);
      at += size;
      other = size == 0;
      if (other) break;
      continue;
    }
    if (odd == 0) {
      end += 8;
      at += 8;
      continue;
    }
    const int shift = std::countr_zero(odd);
    const uint64_t from_tip = word >> shift;
    const uint8_t* const tip = at + shift / 8;
    end += shift / 8;
    const uint64_t mask = kTipMask[from_tip & 0xff];
    if (mask == 0) [[unlikely]] {
      const ptrdiff_t size = take_rarer(tip, last_ip, end, fast);
      at = tip + size;
      other = size == 0;
      if (other) break;
      continue;
    }
    at = tip + 1 + ((from_tip >> 4) & 0xe);
    last_ip = next_ip(last_ip, tip, mask);
    fast.tip(last_ip);
  }
  at_out = at;
  last_ip_out = last_ip;
  plain.end = end;
  fast_out = fast;
  return !other;
}

// What a block of trace holds, a bit for each byte, whatever packet the byte may belong to.
struct BlockBits {
  uint32_t stops;   // neither PAD nor short TNT, if a packet begins here
  uint32_t ip_low;  // bits 5 and 6: the low two of IPBytes, if it is a TIP
  uint32_t ip_high;
};
// A block is a register's 32 bytes but one, so that two bits a byte and two more fit a word.
constexpr ptrdiff_t kBlock = 31;

[[gnu::target("avx2")]] inline uint32_t top_bits(__m256i bytes) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
}

[[gnu::target("avx2")]] inline BlockBits block_bits(const uint8_t* at) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  BlockBits out;
  out.stops = top_bits(_mm256_slli_epi16(bytes, 7)) |
              top_bits(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(opcode::kExtended)));
  out.ip_low = top_bits(_mm256_slli_epi16(bytes, 2));
  out.ip_high = top_bits(_mm256_slli_epi16(bytes, 1));
  return out;
}

// Copies a run to where 16 bytes more than it has may be written; as many may be read.
[[gnu::always_inline]] inline void copy_run(uint8_t* to, const uint8_t* run, ptrdiff_t n) {
  std::memcpy(to, run, 16);
  for (ptrdiff_t done = 16; done < n; done += 16)
    [[unlikely]] std::memcpy(to + done, run + done, 16);
}

// The same as scan_steps, a block at a time, of which the last begins before `limit`. Where packets
// begin is found among bits in registers: a chain of five cheap instructions from one TIP to the
// next, and from block to block only the last TIP's size.
template <class Fast>
[[gnu::target("avx2,bmi,bmi2")]] bool scan_blocks(const uint8_t*& at_out, const uint8_t* limit,
                                                  uint64_t& last_ip_out, PlainBytes& plain,
                                                  Fast& fast_out) {
  const uint8_t* run = at_out;  // since the last TIP
  const uint8_t* block = run;
  uint64_t last_ip = last_ip_out;
  uint8_t* end = plain.end;
  Fast fast = fast_out;
  bool other = false;
  for (; block < limit && !other; block += kBlock) {
    const BlockBits bits = block_bits(block);
    // Two bits a byte: a stop at 2 i; IPBytes at 2 i + 2, so that it comes out as the number of
    // bits that the payload takes.
    uint64_t stops = spread_bits(bits.stops, 0x1555555555555555);
    const uint64_t sizes = spread_bits(bits.ip_low, 0x5555555555555554) |
                           spread_bits(bits.ip_high, 0xaaaaaaaaaaaaaaa8);
    if (run > block) stops &= ~0ull << (2 * (run - block));
    while (stops != 0) {
      const int bit = std::countr_zero(stops);
      const uint64_t payload_bits = (sizes >> bit) & 12;
      const uint8_t* const tip = block + bit / 2;
      copy_run(end, run, tip - run);
      end += tip - run;
      run = tip;
      const uint64_t mask = kTipMask[*tip];
      if (mask == 0) [[unlikely]] {
        const ptrdiff_t size = take_rarer(tip, last_ip, end, fast);
        run = tip + size;
        other = size == 0;
        if (other) break;
        stops &= (~0ull << bit) << (2 * size);
        continue;
      }
      stops &= (~3ull << bit) << payload_bits;
      last_ip = next_ip(last_ip, tip, mask);
      fast.tip(last_ip);
      run = tip + 1 + payload_bits / 2;
    }
  }
  if (!other && run < block) {
    copy_run(end, run, block - run);
    end += block - run;
    run = block;
  }
  at_out = run;
  last_ip_out = last_ip;
  plain.end = end;
  fast_out = fast;
  return !other;
}

}  // namespace kernel

// Scans from `at` while steps begin before `limit`, which leaves room in `fast`; returns where it
// stopped. Branches are handed over in their order, but later than the TIPs among them. kAvx2 only
// where has_avx2_kernel().
template <bool kAvx2, bool kPads, class Fast>
const uint8_t* scan_plain(const uint8_t* at, const uint8_t* limit, uint64_t& last_ip, Fast& fast) {
  kernel::PlainBytes plain;
  const auto hand_over = [&] {
    if constexpr (kAvx2) {
      kernel::hand_over_avx2<kPads>(plain, fast);
    } else {
      kernel::hand_over<kPads>(plain, fast);
    }
  };
  bool plainly = true;
  while (plainly && at < limit) {
    if (plain.room() <= 0) hand_over();
    const uint8_t* const until = limit - at < plain.room() ? limit : at + plain.room();
    if constexpr (kAvx2) {
      plainly = kernel::scan_blocks(at, until, last_ip, plain, fast);
    } else {
      plainly = kernel::scan_steps(at, until, last_ip, plain, fast);
    }
  }
  hand_over();
  return at;
}

}  // namespace us::ipt
