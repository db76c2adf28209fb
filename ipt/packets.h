// Intel PT packets: kinds, opcodes, sizes, and a bounded parser for one packet. Facts are from the
// SDM, volume 3C, chapter "Intel Processor Trace", section "Packet Definitions" (35.4.2 in
// revision 089; the section is named after the packet, so only the subsection is given below).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace us::ipt {

enum class PacketKind : uint8_t {
  kPad,
  kTnt8,    // up to 6 conditional branches
  kTnt64,   // up to 47 conditional branches
  kTip,     // target of an indirect or far branch, or of an asynchronous event (after a FUP)
  kTipPge,  // packet generation enabled at this address
  kTipPgd,  // packet generation disabled
  kFup,     // source address of an asynchronous event, or status
  kPip,     // CR3 was written
  kModeExec,
  kModeTsx,
  kTraceStop,
  kCbr,
  kTsc,
  kMtc,
  kTma,
  kCyc,
  kVmcs,
  kOvf,
  kPsb,
  kPsbEnd,
  kMnt,
  kPtw,
  kExstop,
  kMwait,
  kPwre,
  kPwrx,
  kBbp,  // block begin (PEBS through PT)
  kBip,  // block item: only between BBP and BEP
  kBep,  // block end
  kCfe,
  kEvd,
  kTrig,
};
constexpr size_t kPacketKinds = static_cast<size_t>(PacketKind::kTrig) + 1;

// "pad", "tnt.8", "tip.pge", …: for dumps and messages.
std::string_view name_of(PacketKind kind);

// First bytes. TIP, TIP.PGE, TIP.PGD and FUP are the low five bits; IPBytes are the high three.
namespace opcode {
constexpr uint8_t kPad = 0x00;       // 35.4.2.21
constexpr uint8_t kExtended = 0x02;  // every packet of two opcode bytes
constexpr uint8_t kTipPgd = 0x01;    // 35.4.2.5
constexpr uint8_t kTip = 0x0d;       // 35.4.2.2
constexpr uint8_t kTipPge = 0x11;    // 35.4.2.4
constexpr uint8_t kFup = 0x1d;       // 35.4.2.6
constexpr uint8_t kIpMask = 0x1f;
constexpr uint8_t kTsc = 0x19;   // 35.4.2.11
constexpr uint8_t kMtc = 0x59;   // 35.4.2.12
constexpr uint8_t kMode = 0x99;  // 35.4.2.8; leaf in the top three bits of the payload
constexpr uint8_t kTrig = 0xd9;  // TRIG packet (trigger tracing)
}  // namespace opcode

// Second bytes after kExtended.
namespace extended {
constexpr uint8_t kCbr = 0x03;
constexpr uint8_t kPtw = 0x12;  // low five bits; size in bits 6:5, IP in bit 7
constexpr uint8_t kPtwMask = 0x1f;
constexpr uint8_t kCfe = 0x13;
constexpr uint8_t kPwre = 0x22;
constexpr uint8_t kPsbEnd = 0x23;
constexpr uint8_t kBep = 0x33;
constexpr uint8_t kPip = 0x43;
constexpr uint8_t kEvd = 0x53;
constexpr uint8_t kExstop = 0x62;
constexpr uint8_t kBbp = 0x63;
constexpr uint8_t kTma = 0x73;
constexpr uint8_t kPsb = 0x82;
constexpr uint8_t kTraceStop = 0x83;
constexpr uint8_t kPwrx = 0xa2;
constexpr uint8_t kTnt64 = 0xa3;
constexpr uint8_t kBepIp = 0xb3;
constexpr uint8_t kMwait = 0xc2;
constexpr uint8_t kThirdByte = 0xc3;  // a third opcode byte follows; only MNT is defined
constexpr uint8_t kVmcs = 0xc8;
constexpr uint8_t kExstopIp = 0xe2;
constexpr uint8_t kOvf = 0xf3;
constexpr uint8_t kMntThird = 0x88;
}  // namespace extended

constexpr size_t kPsbBytes = 16;  // 02 82, eight times
constexpr size_t kPipBytes = 8;
constexpr size_t kTnt64Bytes = 8;
constexpr size_t kMaxPacketBytes = 16;
constexpr unsigned kTnt8MaxBits = 6;
constexpr unsigned kTnt64MaxBits = 47;
// A CYC has at most eight extension bytes: more would not fit its 64-bit counter.
constexpr size_t kMaxCycBytes = 9;

// IPBytes, SDM table "FUP/TIP IP Reconstruction" (35.4.2.2).
enum class IpBytes : uint8_t {
  kSuppressed = 0,
  kUpdate16 = 1,
  kUpdate32 = 2,
  kSignExtended48 = 3,
  kUpdate48 = 4,
  kFull = 6,
};

// Payload bytes for a value of IPBytes; 5 and 7 are reserved (valid_ip_bytes says so).
constexpr unsigned ip_payload_bytes(unsigned ip_bytes) {
  return (0x08066420u >> (4 * ip_bytes)) & 15;
}
constexpr bool valid_ip_bytes(unsigned ip_bytes) { return ((0b01011111u >> ip_bytes) & 1) != 0; }

constexpr std::array<uint64_t, 8> kIpPayloadMask = {0, 0xffff, 0xffffffff, ~0ull, 0xffffffffffff,
                                                    0, ~0ull,  0};

constexpr uint64_t sign_extend_48(uint64_t value) {
  return static_cast<uint64_t>(static_cast<int64_t>(value << 16) >> 16);
}

// The full address that `payload` (its own bytes, the rest zero) stands for after `last_ip`.
constexpr uint64_t expand_ip(unsigned ip_bytes, uint64_t payload, uint64_t last_ip) {
  const uint64_t mask = kIpPayloadMask[ip_bytes];
  const uint64_t value = ip_bytes == 3 ? sign_extend_48(payload) : payload;
  return (last_ip & ~mask) | (value & mask);
}

// MODE.Exec payload bits (35.4.2.8): CS.L with EFER.LMA, and CS.D. 64-bit is kExecLong, 32-bit
// kExecD, 16-bit neither. Bit 2 (IF) is only valid with event tracing.
constexpr uint8_t kExecLong = 1;
constexpr uint8_t kExecD = 2;
constexpr uint8_t kExecModeMask = 3;

struct Packet {
  PacketKind kind = PacketKind::kPad;
  uint8_t size = 0;      // whole packet in bytes
  uint8_t ip_bytes = 0;  // TIP, TIP.PGE, TIP.PGD, FUP
  uint8_t bits = 0;      // TNT: how many branches
  bool flag = false;     // PIP: NR. PTW, EXSTOP, BEP, CFE, TRIG: a FUP follows and belongs to it
  // TNT: branches, oldest highest. PIP: CR3. MODE: low five bits. BBP: item bytes (4 or 8).
  // IP packets: the payload as it stands. Others: the payload's first eight bytes, 0 when none.
  uint64_t value = 0;
  uint64_t ip = 0;  // IP packets: full address, filled in by the scanner
};

enum class ParseStatus : uint8_t {
  kOk,
  kNeedMore,  // these bytes may begin a packet, but it does not end within them
  kBad,       // no packet of the SDM begins like this
};

// Parses the packet at `bytes`, reading at most `available` bytes. `block_item_bytes` is 4 or 8
// between BBP and BEP, else 0. On kOk `packet` is filled but for `ip`.
ParseStatus parse_packet(const uint8_t* bytes, size_t available, unsigned block_item_bytes,
                         Packet& packet);

// Only TIP, TIP.PGE, TIP.PGD and FUP, of which the 9 bytes from `bytes` on are readable: the same
// as parse_packet, but without a call.
inline bool parse_ip_packet(const uint8_t* bytes, Packet& packet) {
  const unsigned ip_bytes = bytes[0] >> 5;
  switch (bytes[0] & opcode::kIpMask) {
    case opcode::kTip: packet.kind = PacketKind::kTip; break;
    case opcode::kTipPge: packet.kind = PacketKind::kTipPge; break;
    case opcode::kTipPgd: packet.kind = PacketKind::kTipPgd; break;
    case opcode::kFup: packet.kind = PacketKind::kFup; break;
    default: return false;
  }
  if (!valid_ip_bytes(ip_bytes)) return false;
  const unsigned payload = ip_payload_bytes(ip_bytes);
  uint64_t value;
  std::memcpy(&value, bytes + 1, sizeof value);
  packet.size = static_cast<uint8_t>(1 + payload);
  packet.ip_bytes = static_cast<uint8_t>(ip_bytes);
  packet.bits = 0;
  packet.flag = false;
  packet.value = payload == 0 ? 0 : value & (~0ull >> (64 - 8 * payload));
  return true;
}

}  // namespace us::ipt
