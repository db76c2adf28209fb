#include "ipt/packets.h"

#include <bit>
#include <cstring>

namespace us::ipt {
namespace {

uint64_t little_endian(const uint8_t* bytes, size_t n) {
  uint64_t value = 0;
  std::memcpy(&value, bytes, n);
  return value;
}

// A packet of a fixed size whose payload starts at `payload_at` and is kept as it stands.
ParseStatus fixed(const uint8_t* bytes, size_t available, PacketKind kind, unsigned size,
                  unsigned payload_at, Packet& packet) {
  if (available < size) return ParseStatus::kNeedMore;
  packet.kind = kind;
  packet.size = static_cast<uint8_t>(size);
  const unsigned payload = size - payload_at;
  packet.value = little_endian(bytes + payload_at, payload < 8 ? payload : 8);
  return ParseStatus::kOk;
}

ParseStatus parse_ip(const uint8_t* bytes, size_t available, PacketKind kind, Packet& packet) {
  const unsigned ip_bytes = bytes[0] >> 5;
  if (!valid_ip_bytes(ip_bytes)) return ParseStatus::kBad;
  packet.ip_bytes = static_cast<uint8_t>(ip_bytes);
  return fixed(bytes, available, kind, 1 + ip_payload_bytes(ip_bytes), 1, packet);
}

// `payload` has a stop bit above the branches.
ParseStatus set_tnt(PacketKind kind, unsigned size, uint64_t payload, Packet& packet) {
  if (payload <= 1) return ParseStatus::kBad;  // no stop bit, or no branch
  packet.kind = kind;
  packet.size = static_cast<uint8_t>(size);
  packet.bits = static_cast<uint8_t>(63 - std::countl_zero(payload));
  packet.value = payload ^ (1ull << packet.bits);
  return ParseStatus::kOk;
}

ParseStatus parse_mode(const uint8_t* bytes, size_t available, Packet& packet) {
  if (available < 2) return ParseStatus::kNeedMore;
  const unsigned leaf = bytes[1] >> 5;
  if (leaf > 1) return ParseStatus::kBad;
  packet.kind = leaf == 0 ? PacketKind::kModeExec : PacketKind::kModeTsx;
  packet.size = 2;
  packet.value = bytes[1] & 0x1f;
  return ParseStatus::kOk;
}

ParseStatus parse_cyc(const uint8_t* bytes, size_t available, Packet& packet) {
  uint64_t value = bytes[0] >> 3;
  bool more = (bytes[0] & 4) != 0;
  size_t size = 1;
  for (unsigned shift = 5; more; shift += 7, ++size) {
    if (size == available) return ParseStatus::kNeedMore;
    if (size == kMaxCycBytes) return ParseStatus::kBad;
    value |= static_cast<uint64_t>(bytes[size] >> 1) << shift;
    more = (bytes[size] & 1) != 0;
  }
  packet.kind = PacketKind::kCyc;
  packet.size = static_cast<uint8_t>(size);
  packet.value = value;
  return ParseStatus::kOk;
}

ParseStatus parse_trig(const uint8_t* bytes, size_t available, Packet& packet) {
  if (available < 3) return ParseStatus::kNeedMore;
  const unsigned size = (bytes[1] & 0x40) != 0 ? 5 : 3;  // ICNTV: an instruction count follows
  packet.flag = (bytes[1] & 0x80) != 0;
  return fixed(bytes, available, PacketKind::kTrig, size, 1, packet);
}

ParseStatus parse_psb(const uint8_t* bytes, size_t available, Packet& packet) {
  if (available < kPsbBytes) return ParseStatus::kNeedMore;
  for (size_t i = 0; i < kPsbBytes; i += 2) {
    if (bytes[i] != opcode::kExtended || bytes[i + 1] != extended::kPsb) return ParseStatus::kBad;
  }
  packet.kind = PacketKind::kPsb;
  packet.size = kPsbBytes;
  return ParseStatus::kOk;
}

ParseStatus parse_pip(const uint8_t* bytes, size_t available, Packet& packet) {
  const ParseStatus status = fixed(bytes, available, PacketKind::kPip, kPipBytes, 2, packet);
  if (status != ParseStatus::kOk) return status;
  packet.flag = (packet.value & 1) != 0;
  packet.value = packet.value >> 1 << 5;  // payload bits 47:1 are CR3[51:5]
  return status;
}

ParseStatus parse_tma(const uint8_t* bytes, size_t available, Packet& packet) {
  const ParseStatus status = fixed(bytes, available, PacketKind::kTma, 7, 2, packet);
  if (status != ParseStatus::kOk) return status;
  // Reserved bits set mean a corrupted packet (erratum SKZ84), as libipt sees it.
  return bytes[4] != 0 || (bytes[6] & 0xfe) != 0 ? ParseStatus::kBad : status;
}

ParseStatus parse_bbp(const uint8_t* bytes, size_t available, Packet& packet) {
  const ParseStatus status = fixed(bytes, available, PacketKind::kBbp, 3, 2, packet);
  if (status == ParseStatus::kOk) packet.value = (bytes[2] & 0x80) != 0 ? 4 : 8;
  return status;
}

ParseStatus parse_ptw(const uint8_t* bytes, size_t available, Packet& packet) {
  const unsigned size_field = (bytes[1] >> 5) & 3;
  if (size_field > 1) return ParseStatus::kBad;
  packet.flag = (bytes[1] & 0x80) != 0;
  return fixed(bytes, available, PacketKind::kPtw, size_field == 0 ? 6 : 10, 2, packet);
}

ParseStatus parse_mnt(const uint8_t* bytes, size_t available, Packet& packet) {
  if (available < 3) return ParseStatus::kNeedMore;
  if (bytes[2] != extended::kMntThird) return ParseStatus::kBad;
  return fixed(bytes, available, PacketKind::kMnt, 11, 3, packet);
}

ParseStatus parse_extended(const uint8_t* bytes, size_t available, Packet& packet) {
  if (available < 2) return ParseStatus::kNeedMore;
  using K = PacketKind;
  switch (bytes[1]) {
    case extended::kPsb: return parse_psb(bytes, available, packet);
    case extended::kPip: return parse_pip(bytes, available, packet);
    case extended::kTma: return parse_tma(bytes, available, packet);
    case extended::kBbp: return parse_bbp(bytes, available, packet);
    case extended::kThirdByte: return parse_mnt(bytes, available, packet);
    case extended::kPsbEnd: return fixed(bytes, available, K::kPsbEnd, 2, 2, packet);
    case extended::kOvf: return fixed(bytes, available, K::kOvf, 2, 2, packet);
    case extended::kTraceStop: return fixed(bytes, available, K::kTraceStop, 2, 2, packet);
    case extended::kCbr: return fixed(bytes, available, K::kCbr, 4, 2, packet);
    case extended::kVmcs: return fixed(bytes, available, K::kVmcs, 7, 2, packet);
    case extended::kMwait: return fixed(bytes, available, K::kMwait, 10, 2, packet);
    case extended::kPwre: return fixed(bytes, available, K::kPwre, 4, 2, packet);
    case extended::kPwrx: return fixed(bytes, available, K::kPwrx, 7, 2, packet);
    case extended::kEvd: return fixed(bytes, available, K::kEvd, 11, 2, packet);
    case extended::kExstop:
    case extended::kExstopIp:
      packet.flag = bytes[1] == extended::kExstopIp;
      return fixed(bytes, available, K::kExstop, 2, 2, packet);
    case extended::kBep:
    case extended::kBepIp:
      packet.flag = bytes[1] == extended::kBepIp;
      return fixed(bytes, available, K::kBep, 2, 2, packet);
    case extended::kCfe:
      if (available >= 3) packet.flag = (bytes[2] & 0x80) != 0;
      return fixed(bytes, available, K::kCfe, 4, 2, packet);
    case extended::kTnt64:
      if (available < kTnt64Bytes) return ParseStatus::kNeedMore;
      return set_tnt(K::kTnt64, kTnt64Bytes, little_endian(bytes + 2, 6), packet);
    default: break;
  }
  if ((bytes[1] & extended::kPtwMask) == extended::kPtw) return parse_ptw(bytes, available, packet);
  return ParseStatus::kBad;
}

ParseStatus parse_odd(const uint8_t* bytes, size_t available, Packet& packet) {
  if ((bytes[0] & 3) == 3) return parse_cyc(bytes, available, packet);
  switch (bytes[0] & opcode::kIpMask) {
    case opcode::kTip: return parse_ip(bytes, available, PacketKind::kTip, packet);
    case opcode::kTipPge: return parse_ip(bytes, available, PacketKind::kTipPge, packet);
    case opcode::kTipPgd: return parse_ip(bytes, available, PacketKind::kTipPgd, packet);
    case opcode::kFup: return parse_ip(bytes, available, PacketKind::kFup, packet);
    default: break;
  }
  switch (bytes[0]) {
    case opcode::kTsc: return fixed(bytes, available, PacketKind::kTsc, 8, 1, packet);
    case opcode::kMtc: return fixed(bytes, available, PacketKind::kMtc, 2, 1, packet);
    case opcode::kMode: return parse_mode(bytes, available, packet);
    case opcode::kTrig: return parse_trig(bytes, available, packet);
    default: return ParseStatus::kBad;
  }
}

}  // namespace

ParseStatus parse_packet(const uint8_t* bytes, size_t available, unsigned block_item_bytes,
                         Packet& packet) {
  packet = Packet{};
  if (available == 0) return ParseStatus::kNeedMore;
  const uint8_t first = bytes[0];
  // Inside a block a first byte of xxxxx100 is a block item, else it would be a TNT (35.4.2.27).
  if (block_item_bytes != 0 && (first & 7) == 4) {
    return fixed(bytes, available, PacketKind::kBip, 1 + block_item_bytes, 1, packet);
  }
  if ((first & 1) != 0) return parse_odd(bytes, available, packet);
  if (first == opcode::kExtended) return parse_extended(bytes, available, packet);
  if (first == opcode::kPad) {
    packet.size = 1;
    return ParseStatus::kOk;
  }
  return set_tnt(PacketKind::kTnt8, 1, first >> 1, packet);
}

std::string_view name_of(PacketKind kind) {
  constexpr std::array<std::string_view, kPacketKinds> kNames = {
      "pad",       "tnt.8",    "tnt.64", "tip",    "tip.pge", "tip.pgd", "fup",    "pip",
      "mode.exec", "mode.tsx", "stop",   "cbr",    "tsc",     "mtc",     "tma",    "cyc",
      "vmcs",      "ovf",      "psb",    "psbend", "mnt",     "ptw",     "exstop", "mwait",
      "pwre",      "pwrx",     "bbp",    "bip",    "bep",     "cfe",     "evd",    "trig"};
  return kNames[static_cast<size_t>(kind)];
}

}  // namespace us::ipt
