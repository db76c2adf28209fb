// Hand-made Ethernet, ARP, IPv4/UDP and DHCP for talking to a network backend as a guest would.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"

namespace us::hv::testing {

using Mac = std::array<uint8_t, 6>;
constexpr Mac kGuestMac = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
constexpr Mac kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

// Network byte order.
class FrameWriter {
 public:
  FrameWriter& u8(uint8_t v) { return bytes_.push_back(v), *this; }
  FrameWriter& u16(uint16_t v) { return u8(static_cast<uint8_t>(v >> 8)).u8(v & 0xff); }
  FrameWriter& u32(uint32_t v) {
    return u16(static_cast<uint16_t>(v >> 16)).u16(static_cast<uint16_t>(v & 0xffff));
  }
  FrameWriter& mac(const Mac& m) { return bytes_.insert(bytes_.end(), m.begin(), m.end()), *this; }
  FrameWriter& zeros(size_t n) { return bytes_.resize(bytes_.size() + n), *this; }
  FrameWriter& raw(ByteSpan b) { return bytes_.insert(bytes_.end(), b.begin(), b.end()), *this; }
  const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

inline uint16_t be16(const Bytes& frame, size_t at) {
  return at + 2 <= frame.size() ? static_cast<uint16_t>(frame[at] << 8 | frame[at + 1]) : 0;
}
inline uint32_t be32(const Bytes& frame, size_t at) {
  return uint32_t{be16(frame, at)} << 16 | be16(frame, at + 2);
}

constexpr uint16_t kEtherArp = 0x0806, kEtherIpv4 = 0x0800;

inline Bytes arp_request(uint32_t sender, uint32_t wanted) {
  FrameWriter f;
  f.mac(kBroadcast).mac(kGuestMac).u16(kEtherArp);
  f.u16(1).u16(kEtherIpv4).u8(6).u8(4).u16(1);
  f.mac(kGuestMac).u32(sender).zeros(6).u32(wanted).zeros(18);
  return f.bytes();
}

inline bool is_arp_reply_from(const Bytes& frame, uint32_t address) {
  return be16(frame, 12) == kEtherArp && be16(frame, 20) == 2 && be32(frame, 28) == address;
}

inline uint16_t ip_checksum(const Bytes& header) {
  uint32_t sum = 0;
  for (size_t i = 0; i + 1 < header.size(); i += 2) sum += be16(header, i);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

inline Bytes udp_frame(const Mac& to, uint32_t source, uint16_t source_port, uint32_t target,
                       uint16_t target_port, const Bytes& payload) {
  const auto length = static_cast<uint16_t>(payload.size());
  const auto header = [&](uint16_t checksum) {
    FrameWriter ip;
    ip.u8(0x45).u8(0).u16(static_cast<uint16_t>(28 + length)).u16(1).u16(0).u8(64).u8(17);
    ip.u16(checksum).u32(source).u32(target);
    return ip.bytes();
  };
  FrameWriter f;
  f.mac(to).mac(kGuestMac).u16(kEtherIpv4).raw(header(ip_checksum(header(0))));
  f.u16(source_port).u16(target_port).u16(static_cast<uint16_t>(8 + length)).u16(0);
  return f.raw(payload).bytes();
}

// RFC 2131: a DISCOVER with nothing but its type.
inline Bytes dhcp_discover(uint32_t transaction) {
  FrameWriter d;
  d.u8(1).u8(1).u8(6).u8(0).u32(transaction).u16(0).u16(0x8000).zeros(16);
  d.mac(kGuestMac).zeros(10 + 64 + 128).u32(0x63825363).u8(53).u8(1).u8(1).u8(255).zeros(60);
  return udp_frame(kBroadcast, 0, 68, 0xffffffff, 67, d.bytes());
}

}  // namespace us::hv::testing
