#include "ipt/capture/guest_filter.h"

#include <algorithm>
#include <utility>

#include "ipt/epoch_digest.h"

namespace us::ipt {
namespace {

constexpr size_t kStaging = size_t{64} << 10;
constexpr uint8_t kPsbEndPacket[] = {opcode::kExtended, extended::kPsbEnd};
constexpr size_t kIpPacketBytes = 9;

}  // namespace

GuestFilter::GuestFilter(bool host_inside, std::function<void(ByteSpan)> out)
    : host_inside_(host_inside),
      out_(std::move(out)),
      place_(host_inside ? Place::kHost : Place::kPaused) {
  staging_.reserve(kStaging + kStaging / 4);
}

void GuestFilter::feed(ByteSpan bytes) {
  if (kept_bytes_ != 0) {
    const size_t n = std::min(bytes.size(), sizeof kept_ - kept_bytes_);
    std::copy_n(bytes.data(), n, kept_ + kept_bytes_);
    const size_t kept = kept_bytes_, all = kept + n;
    const auto used = static_cast<size_t>(run(kept_, kept_ + all) - kept_);
    if (used < kept) {
      // Still no whole packet, so every new byte is among those kept.
      std::copy(kept_ + used, kept_ + all, kept_);
      kept_bytes_ = all - used;
      return flush();
    }
    kept_bytes_ = 0;
    bytes = bytes.subspan(used - kept);
  }
  const uint8_t* const end = bytes.data() + bytes.size();
  const uint8_t* const at = run(bytes.data(), end);
  kept_bytes_ = static_cast<size_t>(end - at);
  std::copy(at, end, kept_);
  flush();
}

void GuestFilter::flush() {
  if (staging_.empty()) return;
  out_(staging_);
  staging_.clear();
}

// Returns where an incomplete packet begins; less than kMaxPacketBytes are left then.
const uint8_t* GuestFilter::run(const uint8_t* at, const uint8_t* end) {
  Packet packet;
  while (at < end) {
    if (staging_.size() >= kStaging) flush();
    if (!synced_) {
      const uint8_t* const from = at;
      const bool found = finder_.advance(at, end);
      searched_ += static_cast<uint64_t>(at - from);
      if (!found) return at;
      // An event begins with a PSB (SDM 3C 35.2.8.3).
      if (std::exchange(searched_, 0) > kPsbBytes) loss_ |= loss_flag::kBadPackets;
      synced_ = true;
      parse_packet(kPsbPacket, kPsbBytes, 0, packet);
      handle(packet, kPsbPacket);
      continue;
    }
    if (place_ == Place::kGuest && !in_psb_ && !fup_pending_ && block_item_bytes_ == 0) {
      at = copy_plain(at, end);
      if (at == end) return at;
    }
    switch (parse_packet(at, static_cast<size_t>(end - at), block_item_bytes_, packet)) {
      case ParseStatus::kNeedMore: return at;
      case ParseStatus::kBad: bad(); break;
      case ParseStatus::kOk:
        handle(packet, at);
        at += packet.size;
        break;
    }
  }
  return at;
}

// Short TNTs, PADs and TIPs in the guest: nearly everything, and nothing is changed.
const uint8_t* GuestFilter::copy_plain(const uint8_t* at, const uint8_t* end) {
  const uint8_t* const from = at;
  Packet packet;
  while (at < end) {
    if ((*at & 1) == 0) {
      if (*at == opcode::kExtended) break;
      ++at;
      continue;
    }
    if ((*at & opcode::kIpMask) != opcode::kTip ||
        end - at < static_cast<ptrdiff_t>(kIpPacketBytes))
      break;
    if (!parse_ip_packet(at, packet)) break;
    last_ip_ = expand_ip(packet.ip_bytes, packet.value, last_ip_);
    at += packet.size;
    if (at - from >= static_cast<ptrdiff_t>(kStaging)) break;
  }
  put(from, static_cast<size_t>(at - from));
  return at;
}

// Which last address the first packet after a pause is compressed against is nowhere written: the
// SDM resets it at PSB only, and libipt keeps it. The guest's place tells the two apart where they
// differ.
void GuestFilter::expand(Packet& packet) {
  const uint64_t kept = expand_ip(packet.ip_bytes, packet.value, last_ip_);
  last_ip_ = kept;
  if (const auto expected = std::exchange(expected_ip_, std::nullopt);
      expected && !host_inside_ && kept != *expected) {
    const uint64_t anew = expand_ip(packet.ip_bytes, packet.value, 0);
    if (anew == *expected) last_ip_ = anew;
  }
  packet.ip = last_ip_;
}

void GuestFilter::handle(const Packet& packet, const uint8_t* bytes) {
  Packet full = packet;
  switch (packet.kind) {
    case PacketKind::kTip:
    case PacketKind::kTipPge:
    case PacketKind::kTipPgd:
    case PacketKind::kFup:
      if (packet.ip_bytes != 0) expand(full);
      block_item_bytes_ = 0;
      break;
    case PacketKind::kPsb:
      last_ip_ = 0;
      block_item_bytes_ = 0;
      in_psb_ = true;
      forward_psb_ = place_ == Place::kGuest;
      psb_owed_ = psb_owed_ || !forward_psb_;
      if (forward_psb_) put(bytes, packet.size);
      return;
    case PacketKind::kOvf:
      // May have swallowed an entry or an exit. What follows is compressed against nothing before.
      last_ip_ = 0;
      block_item_bytes_ = 0;
      in_psb_ = fup_pending_ = false;
      mode_.reset();
      sent_mode_.reset();
      place_ = Place::kUnknown;
      put(bytes, packet.size);
      return;
    case PacketKind::kBbp: block_item_bytes_ = static_cast<unsigned>(packet.value); break;
    case PacketKind::kBep: block_item_bytes_ = 0; break;
    default: break;
  }
  if (in_psb_) return in_psb(full, bytes);
  if (place_ == Place::kGuest) return in_guest_packet(full, bytes);
  outside_packet(full, bytes);
}

void GuestFilter::in_psb(const Packet& packet, const uint8_t* bytes) {
  switch (packet.kind) {
    case PacketKind::kPsbEnd: in_psb_ = false; break;
    case PacketKind::kModeExec: mode_ = static_cast<uint8_t>(packet.value); break;
    case PacketKind::kPip:
      if (host_inside_) on_psb_pip(packet.flag);
      break;
    case PacketKind::kFup:
      // Only with the guest being traced, and its address is where.
      if (place_ == Place::kUnknown && !host_inside_) {
        enter(packet.ip);
        return;
      }
      break;
    default: break;
  }
  if (forward_psb_ && place_ == Place::kGuest) {
    if (packet.kind == PacketKind::kModeExec) sent_mode_ = mode_;
    put(bytes, packet.size);
  }
}

void GuestFilter::on_psb_pip(bool non_root) {
  const bool inside = place_ == Place::kGuest || place_ == Place::kPaused;
  if (place_ == Place::kUnknown) {
    place_ = non_root ? Place::kEntering : Place::kHost;
  } else if (inside != non_root && place_ != Place::kEntering) {
    loss_ |= loss_flag::kBadPackets;  // an entry or an exit is missing
    place_ = Place::kUnknown;
  }
}

void GuestFilter::in_guest_packet(const Packet& packet, const uint8_t* bytes) {
  switch (packet.kind) {
    case PacketKind::kPip:
      if (!host_inside_ || packet.flag) break;
      if (!fup_pending_) loss_ |= loss_flag::kBadPackets;
      return leave();
    case PacketKind::kFup: fup_pending_ = true; break;
    case PacketKind::kTip:
    case PacketKind::kTnt8:
    case PacketKind::kTnt64: fup_pending_ = false; break;
    case PacketKind::kTipPgd:
      fup_pending_ = false;
      place_ = Place::kPaused;
      break;
    case PacketKind::kTipPge: loss_ |= loss_flag::kBadPackets; break;
    case PacketKind::kModeExec: sent_mode_ = mode_ = static_cast<uint8_t>(packet.value); break;
    default: break;
  }
  put(bytes, packet.size);
}

void GuestFilter::outside_packet(const Packet& packet, const uint8_t* bytes) {
  // With tracing off nothing has an address but what turns it on.
  const bool flow = packet.kind == PacketKind::kTip || packet.kind == PacketKind::kTipPgd ||
                    packet.kind == PacketKind::kFup || packet.kind == PacketKind::kTnt8 ||
                    packet.kind == PacketKind::kTnt64;
  if (flow && place_ == Place::kPaused) {
    loss_ |= loss_flag::kBadPackets;
    return;
  }
  switch (packet.kind) {
    case PacketKind::kModeExec: mode_ = static_cast<uint8_t>(packet.value); return;
    case PacketKind::kPip:
      if (!host_inside_) return;
      // In the guest this was a write of CR3, after an OVF; either way the next address is its.
      place_ = packet.flag ? Place::kEntering : Place::kHost;
      return;
    case PacketKind::kTip:
      if (place_ == Place::kEntering) enter(packet.ip);
      return;
    case PacketKind::kTipPge:
      if (place_ == Place::kHost || (place_ == Place::kUnknown && host_inside_)) return;
      return enter(packet.ip);
    case PacketKind::kFup:
      if (place_ != Place::kUnknown || host_inside_) return;
      // An OVF resolved while the guest ran: it goes on here.
      put(bytes, packet.size);
      place_ = Place::kGuest;
      return;
    case PacketKind::kTnt8:
    case PacketKind::kTnt64:
      if (place_ == Place::kEntering) loss_ |= loss_flag::kBadPackets;
      return;
    default: return;
  }
}

void GuestFilter::enter(uint64_t ip) {
  if (std::exchange(psb_owed_, false)) {
    put(kPsbPacket, kPsbBytes);
    sent_mode_.reset();
    if (mode_) {
      const uint8_t mode[] = {opcode::kMode, *mode_};
      put(mode, sizeof mode);
      sent_mode_ = mode_;
    }
    put(kPsbEndPacket, sizeof kPsbEndPacket);
  }
  if (mode_ && sent_mode_ != mode_) {
    const uint8_t mode[] = {opcode::kMode, *mode_};
    put(mode, sizeof mode);
    sent_mode_ = mode_;
  }
  // In full: what it would be compressed against may not have been sent.
  put_ip(opcode::kTipPge, ip);
  place_ = Place::kGuest;
  fup_pending_ = false;
}

void GuestFilter::leave() {
  const uint8_t pgd = opcode::kTipPgd;
  put(&pgd, 1);
  place_ = Place::kHost;
  fup_pending_ = false;
}

void GuestFilter::put_ip(uint8_t op, uint64_t ip) {
  const IpBytes form = sign_extend_48(ip) == ip ? IpBytes::kSignExtended48 : IpBytes::kFull;
  const auto ip_bytes = static_cast<unsigned>(form);
  uint8_t packet[kIpPacketBytes] = {static_cast<uint8_t>(op | ip_bytes << 5)};
  for (unsigned i = 0; i < 8; ++i) packet[1 + i] = static_cast<uint8_t>(ip >> (8 * i));
  put(packet, 1 + ip_payload_bytes(ip_bytes));
}

void GuestFilter::bad() {
  loss_ |= loss_flag::kBadPackets;
  lose();
}

void GuestFilter::lose() {
  synced_ = false;
  finder_.reset();
  kept_bytes_ = 0;
  place_ = host_inside_ ? Place::kHost : Place::kPaused;
  in_psb_ = fup_pending_ = false;
  block_item_bytes_ = 0;
  mode_.reset();
  sent_mode_.reset();
  expected_ip_.reset();
  psb_owed_ = true;
}

uint32_t GuestFilter::end_stretch() {
  // Tracing was stopped in the host, which is behind an exit.
  const Place left = host_inside_ ? Place::kHost : Place::kPaused;
  const bool whole =
      std::exchange(searched_, 0) == 0 && kept_bytes_ == 0 && !in_psb_ && place_ == left;
  if (!whole) loss_ |= loss_flag::kBadPackets;
  return std::exchange(loss_, 0);
}

}  // namespace us::ipt
