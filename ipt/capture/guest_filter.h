// From a trace as the hardware gives it to one of the guest alone, in stretches that can each be
// decoded alone. Streaming: bytes come in pieces of any size, and no more than one incomplete
// packet is kept.
//
// A trace of everything (stock kvm modules): whether the processor was in the guest is said by NR
// of PIP. A VM exit is FUP(guest), PIP(NR=0), TIP(host), a VM entry PIP(NR=1), TIP(guest), with
// MODE.Exec before the TIP where it changed (SDM 3C table 35-53). They come out as what a
// guest-only trace has in their place, FUP, TIP.PGD and TIP.PGE. No branch can be counted for the
// wrong side: the processor holds taken-or-not bits back until a TNT is full or another packet is
// to be made, and then gives them out first (35.4.2.1), so the FUP of an exit and the PIP of an
// entry are behind every bit of what ran before.
//
// Stretches: an event that was stopped and goes on makes no PSB (perf clears the count of bytes
// that decides about it at the first start only; SDM 3C 35.2.8.3). So the filter puts one there,
// and keeps what a decoder forgets at a PSB: addresses are compressed against the last one sent
// (35.4.2.2), which is remembered, and the first of a stretch is written out in full. A new event
// for every stretch would bring a real PSB, and costs two mappings.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/bytes.h"
#include "ipt/packets.h"
#include "ipt/scanner.h"

namespace us::ipt {

class GuestFilter {
 public:
  // `out` gets the guest's trace and outlives the filter.
  GuestFilter(bool host_inside, std::function<void(ByteSpan)> out);

  // Between stretches, with the processor in the host. What is sent next starts a stretch.
  void begin_stretch() { psb_owed_ = true; }
  // Tracing was off and goes on, with the guest at `ip`, if that is known.
  void resume(std::optional<uint64_t> ip) { expected_ip_ = ip; }
  void feed(ByteSpan bytes);
  // Everything of the stretch was fed. Returns loss_flag::kBadPackets where it was no whole trace;
  // then lose() must be called.
  uint32_t end_stretch();
  // Bytes are missing before those that come next: nothing is given out up to the next PSB.
  void lose();

  bool in_guest() const { return place_ == Place::kGuest; }

 private:
  enum class Place : uint8_t {
    kHost,
    kEntering,  // PIP with NR=1 seen in the host; next is the TIP into the guest
    kPaused,    // tracing is off, and goes on in the guest
    kGuest,
    kUnknown,  // after an OVF
  };

  const uint8_t* run(const uint8_t* at, const uint8_t* end);
  const uint8_t* copy_plain(const uint8_t* at, const uint8_t* end);
  void expand(Packet& packet);
  void handle(const Packet& packet, const uint8_t* bytes);
  void in_psb(const Packet& packet, const uint8_t* bytes);
  void in_guest_packet(const Packet& packet, const uint8_t* bytes);
  void outside_packet(const Packet& packet, const uint8_t* bytes);
  void on_psb_pip(bool non_root);
  void enter(uint64_t ip);
  void leave();
  void bad();
  void put(const uint8_t* bytes, size_t n) { staging_.insert(staging_.end(), bytes, bytes + n); }
  void put_ip(uint8_t op, uint64_t ip);
  void flush();

  bool host_inside_;
  std::function<void(ByteSpan)> out_;
  Bytes staging_;

  bool synced_ = false;
  PsbFinder finder_;
  uint64_t searched_ = 0;  // bytes looked through for a PSB
  Place place_;
  bool in_psb_ = false;
  bool forward_psb_ = false;  // the PSB+ at hand is the guest's
  bool fup_pending_ = false;  // a FUP that may be an exit's was sent
  unsigned block_item_bytes_ = 0;
  uint64_t last_ip_ = 0;
  std::optional<uint8_t> mode_, sent_mode_;  // of the processor; as the output has it
  std::optional<uint64_t> expected_ip_;
  bool psb_owed_ = true;
  uint32_t loss_ = 0;
  uint8_t kept_[4 * kMaxPacketBytes] = {};
  size_t kept_bytes_ = 0;
};

}  // namespace us::ipt
