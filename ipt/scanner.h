// A streaming scanner over raw Intel PT bytes, with no binary at hand. It recognises and sizes
// every packet, expands compressed addresses, starts at the first PSB, and after damage goes on at
// the next one. Bytes come in pieces of any size; a packet may be split between them. Nothing
// outside the pieces is ever read.
//
// What it finds goes to a Sink, compiled in so that the hot packets (short TNT, PAD, TIP) cost a
// few instructions. A Sink has:
//   struct Fast                      a copy of the sink's hot state, kept in registers:
//     void tnt(uint64_t bits, unsigned n)   n <= 48 branches, oldest highest; bits above n are zero
//     void tip(uint64_t ip)                 a TIP's full address. Those of a while come before the
//                                           branches among them
//     void pads(unsigned n)                 n PAD bytes (only counted by sinks that want them)
//     ptrdiff_t room() const                how many bytes of trace surely fit, not 0. A step may
//                                           go 240 branches and 12 targets beyond
//   static constexpr bool kWantsPads
//   bool plain() const               TNT and TIP may go to Fast now
//   void pads(uint64_t n)            PAD bytes outside Fast
//   Fast begin_fast(); void end_fast(const Fast&);
//   void packet(const Packet&)       every other packet, and those too when not plain()
//   void damage(uint64_t offset)     no packet at this offset of the stream
#pragma once

#include <cstdint>
#include <cstring>

#include "base/bytes.h"
#include "ipt/packets.h"
#include "ipt/scanner_kernel.h"

namespace us::ipt {

// Finds PSB byte by byte across pieces. A PSB is 02 82 eight times.
class PsbFinder {
 public:
  void reset() { matched_ = 0; }
  // Looks through [at, end). True: a PSB ends at `at`. False: `at` is `end`, and the search goes on
  // with the next piece.
  bool advance(const uint8_t*& at, const uint8_t* end);

 private:
  unsigned matched_ = 0;
};

// True when the processor has AVX2 and a fast PEXT (BMI2, and not AMD before family 19h, where it
// is slow).
bool has_avx2_kernel();

template <class Sink>
class Scanner {
 public:
  // `sink` outlives the scanner.
  explicit Scanner(Sink& sink) : sink_(sink), avx2_(has_avx2_kernel()) {}

  void feed(ByteSpan bytes);

  // Bytes of an incomplete packet at the end of what was fed.
  size_t pending_bytes() const { return synced_ ? kept_ - history_ : 0; }
  bool synced() const { return synced_; }
  // Bytes that belonged to no packet: before the first PSB, and from damage to the next one.
  uint64_t skipped_bytes() const { return skipped_ + searched_; }
  uint64_t bytes_fed() const { return fed_; }
  // For tests: forces the portable kernel, which gives the same results.
  void use_portable_kernel() { avx2_ = false; }

 private:
  // A damaged packet may have swallowed the start of a PSB: the search goes back this far.
  static constexpr size_t kLookBack = kPsbBytes - 1;
  // New bytes handled next to what was kept from the last piece.
  static constexpr size_t kJoin = 64;

  const uint8_t* run(const uint8_t* low, const uint8_t* at, const uint8_t* end, const uint8_t* stop,
                     uint64_t offset_of_low);
  const uint8_t* run_fast(const uint8_t* at, const uint8_t* limit);
  const uint8_t* skip_pads(const uint8_t* at, const uint8_t* stop);
  void deliver_ip(Packet& packet);
  void deliver(Packet& packet);
  void damage(const uint8_t* low, const uint8_t* at, uint64_t offset_of_low);
  void keep(const uint8_t* low, const uint8_t* at, const uint8_t* end);

  Sink& sink_;
  bool avx2_;
  bool synced_ = false;
  unsigned block_item_bytes_ = 0;
  uint64_t last_ip_ = 0;
  uint64_t fed_ = 0;
  uint64_t skipped_ = 0;
  uint64_t searched_ = 0;  // since the PSB search began
  PsbFinder finder_;
  // kept bytes: up to kLookBack already scanned ones (history_), then an incomplete packet's.
  uint8_t join_[kLookBack + kMaxPacketBytes + kJoin] = {};
  size_t history_ = 0;
  size_t kept_ = 0;
};

template <class Sink>
void Scanner<Sink>::feed(ByteSpan bytes) {
  if (bytes.empty()) return;
  const size_t joined = bytes.size() < kJoin ? bytes.size() : kJoin;
  std::memcpy(join_ + kept_, bytes.data(), joined);
  const uint8_t* const join_end = join_ + kept_ + joined;
  const bool all = joined == bytes.size();
  // Past kLookBack new bytes the piece itself holds everything a search needs.
  const uint8_t* const stop = all ? join_end : join_ + kept_ + kMaxPacketBytes;
  const uint8_t* at = run(join_, join_ + history_, join_end, stop, fed_ - kept_);
  if (all) {
    fed_ += bytes.size();
    keep(join_, at, join_end);
    return;
  }
  const uint8_t* const end = bytes.data() + bytes.size();
  at = run(bytes.data(), bytes.data() + (at - (join_ + kept_)), end, end, fed_);
  fed_ += bytes.size();
  keep(bytes.data(), at, end);
}

template <class Sink>
void Scanner<Sink>::keep(const uint8_t* low, const uint8_t* at, const uint8_t* end) {
  const size_t scanned = static_cast<size_t>(at - low);
  history_ = scanned < kLookBack ? scanned : kLookBack;
  kept_ = history_ + static_cast<size_t>(end - at);
  std::memmove(join_, at - history_, kept_);
}

// Scans from `at` until `stop` is reached or [at, end) ends within a packet; returns where.
template <class Sink>
const uint8_t* Scanner<Sink>::run(const uint8_t* low, const uint8_t* at, const uint8_t* end,
                                  const uint8_t* stop, uint64_t offset_of_low) {
  Packet packet;
  while (at < stop) {
    if (!synced_) {
      const uint8_t* const from = at;
      const bool found = finder_.advance(at, end);
      searched_ += static_cast<uint64_t>(at - from);
      if (!found) return at;
      // The PSB may have begun before the damage.
      skipped_ += searched_ > kPsbBytes ? searched_ - kPsbBytes : 0;
      searched_ = 0;
      synced_ = true;
      parse_packet(kPsbPacket, kPsbBytes, 0, packet);
      deliver(packet);
      continue;
    }
    if (block_item_bytes_ == 0 && sink_.plain() && end - at > kKernelReach && at > low) {
      const uint8_t* const limit = end - kKernelReach < stop ? end - kKernelReach : stop;
      at = run_fast(at, limit);
      if (at >= stop) return at;
    }
    if (*at == opcode::kPad) {
      at = skip_pads(at, stop);
      continue;
    }
    if (end - at >= kKernelReach && parse_ip_packet(at, packet)) {
      at += packet.size;
      deliver_ip(packet);
      continue;
    }
    switch (parse_packet(at, static_cast<size_t>(end - at), block_item_bytes_, packet)) {
      case ParseStatus::kNeedMore: return at;
      case ParseStatus::kBad: damage(low, at, offset_of_low); break;
      case ParseStatus::kOk:
        at += packet.size;
        deliver(packet);
        break;
    }
  }
  return at;
}

template <class Sink>
const uint8_t* Scanner<Sink>::run_fast(const uint8_t* at, const uint8_t* limit) {
  for (;;) {
    typename Sink::Fast fast = sink_.begin_fast();
    const uint8_t* const until = limit - at < fast.room() ? limit : at + fast.room();
    at = avx2_ ? scan_plain<true, Sink::kWantsPads>(at, until, last_ip_, fast)
               : scan_plain<false, Sink::kWantsPads>(at, until, last_ip_, fast);
    sink_.end_fast(fast);
    if (at < until || at >= limit) return at;
  }
}

// PADs never go through the parser: between TIP.PGD and TIP.PGE there are more of them than of
// anything else. Precondition: one at `at`.
template <class Sink>
const uint8_t* Scanner<Sink>::skip_pads(const uint8_t* at, const uint8_t* stop) {
  const uint8_t* const from = at;
  while (stop - at >= 8) {
    const uint64_t word = kernel::load64(at);
    if (word != 0) {
      at += std::countr_zero(word) / 8;
      sink_.pads(static_cast<uint64_t>(at - from));
      return at;
    }
    at += 8;
  }
  while (at < stop && *at == opcode::kPad) ++at;
  sink_.pads(static_cast<uint64_t>(at - from));
  return at;
}

template <class Sink>
void Scanner<Sink>::deliver_ip(Packet& packet) {
  last_ip_ = expand_ip(packet.ip_bytes, packet.value, last_ip_);
  packet.ip = last_ip_;
  block_item_bytes_ = 0;
  sink_.packet(packet);
}

template <class Sink>
void Scanner<Sink>::deliver(Packet& packet) {
  switch (packet.kind) {
    case PacketKind::kTip:
    case PacketKind::kTipPge:
    case PacketKind::kTipPgd:
    case PacketKind::kFup: return deliver_ip(packet);
    case PacketKind::kPsb:
    case PacketKind::kOvf:
      // Addresses are never compressed against what came before these (SDM 35.4.2.2, 35.4.2.17).
      last_ip_ = 0;
      block_item_bytes_ = 0;
      break;
    case PacketKind::kBbp: block_item_bytes_ = static_cast<unsigned>(packet.value); break;
    case PacketKind::kBep: block_item_bytes_ = 0; break;
    default: break;
  }
  sink_.packet(packet);
}

template <class Sink>
void Scanner<Sink>::damage(const uint8_t* low, const uint8_t* at, uint64_t offset_of_low) {
  synced_ = false;
  block_item_bytes_ = 0;
  finder_.reset();
  const uint8_t* back = static_cast<size_t>(at - low) < kLookBack ? low : at - kLookBack;
  // Fewer than a PSB's bytes: none can end here.
  finder_.advance(back, at);
  sink_.damage(offset_of_low + static_cast<uint64_t>(at - low));
}

}  // namespace us::ipt
