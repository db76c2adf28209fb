// libipt's packet decoder as the judge of ours.
#pragma once

#include <intel-pt.h>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "ipt/packets.h"

namespace us::ipt::test {

class LibiptDecoder {
 public:
  // `bytes` outlives the decoder.
  explicit LibiptDecoder(ByteSpan bytes) : decoder_(nullptr, pt_pkt_free_decoder) {
    pt_config config;
    pt_config_init(&config);
    config.begin = const_cast<uint8_t*>(bytes.data());
    config.end = config.begin + bytes.size();
    decoder_.reset(pt_pkt_alloc_decoder(&config));
    US_CHECK(decoder_ != nullptr);
  }
  int sync_set(uint64_t offset) { return pt_pkt_sync_set(decoder_.get(), offset); }
  int sync_forward() { return pt_pkt_sync_forward(decoder_.get()); }
  int next(pt_packet& packet) { return pt_pkt_next(decoder_.get(), &packet, sizeof packet); }

 private:
  std::unique_ptr<pt_packet_decoder, void (*)(pt_packet_decoder*)> decoder_;
};

// The packet types of libipt 2.0; the rest it does not know.
inline std::optional<PacketKind> kind_of(pt_packet_type type, const pt_packet& packet) {
  switch (type) {
    case ppt_pad: return PacketKind::kPad;
    case ppt_psb: return PacketKind::kPsb;
    case ppt_psbend: return PacketKind::kPsbEnd;
    case ppt_fup: return PacketKind::kFup;
    case ppt_tip: return PacketKind::kTip;
    case ppt_tip_pge: return PacketKind::kTipPge;
    case ppt_tip_pgd: return PacketKind::kTipPgd;
    case ppt_tnt_8: return PacketKind::kTnt8;
    case ppt_tnt_64: return PacketKind::kTnt64;
    case ppt_mode:
      return packet.payload.mode.leaf == pt_mol_exec ? PacketKind::kModeExec : PacketKind::kModeTsx;
    case ppt_pip: return PacketKind::kPip;
    case ppt_vmcs: return PacketKind::kVmcs;
    case ppt_cbr: return PacketKind::kCbr;
    case ppt_tsc: return PacketKind::kTsc;
    case ppt_tma: return PacketKind::kTma;
    case ppt_mtc: return PacketKind::kMtc;
    case ppt_cyc: return PacketKind::kCyc;
    case ppt_stop: return PacketKind::kTraceStop;
    case ppt_ovf: return PacketKind::kOvf;
    case ppt_mnt: return PacketKind::kMnt;
    case ppt_exstop: return PacketKind::kExstop;
    case ppt_mwait: return PacketKind::kMwait;
    case ppt_pwre: return PacketKind::kPwre;
    case ppt_pwrx: return PacketKind::kPwrx;
    case ppt_ptw: return PacketKind::kPtw;
    default: return std::nullopt;
  }
}

// Kinds that came after libipt 2.0: it calls their opcodes bad.
inline bool newer_than_libipt(PacketKind kind) {
  switch (kind) {
    case PacketKind::kBbp:
    case PacketKind::kBip:
    case PacketKind::kBep:
    case PacketKind::kCfe:
    case PacketKind::kEvd:
    case PacketKind::kTrig: return true;
    default: return false;
  }
}

// libipt's packet in our terms; `ip` stays 0. Only what matters to the normal form has a value.
inline Packet translated(const pt_packet& packet) {
  Packet out;
  out.kind = kind_of(packet.type, packet).value();
  out.size = packet.size;
  switch (packet.type) {
    case ppt_tnt_8:
    case ppt_tnt_64:
      out.bits = packet.payload.tnt.bit_size;
      out.value = packet.payload.tnt.payload;
      break;
    case ppt_fup:
    case ppt_tip:
    case ppt_tip_pge:
    case ppt_tip_pgd:
      out.ip_bytes = static_cast<uint8_t>(packet.payload.ip.ipc);
      out.value = packet.payload.ip.ip;
      break;
    case ppt_pip:
      out.flag = packet.payload.pip.nr != 0;
      out.value = packet.payload.pip.cr3;
      break;
    case ppt_mode:
      out.value = packet.payload.mode.leaf == pt_mol_exec
                      ? packet.payload.mode.bits.exec.csl | packet.payload.mode.bits.exec.csd << 1
                      : packet.payload.mode.bits.tsx.intx | packet.payload.mode.bits.tsx.abrt << 1;
      break;
    case ppt_ptw:
      out.flag = packet.payload.ptw.ip != 0;
      out.value = packet.payload.ptw.payload;
      break;
    case ppt_exstop: out.flag = packet.payload.exstop.ip != 0; break;
    case ppt_cyc: out.value = packet.payload.cyc.value; break;
    case ppt_tsc: out.value = packet.payload.tsc.tsc; break;
    default: break;
  }
  return out;
}

// The same view of ours, so that the two compare equal.
inline Packet comparable(Packet packet) {
  packet.ip = 0;
  switch (packet.kind) {
    case PacketKind::kModeExec:
    case PacketKind::kModeTsx: packet.value &= 3; break;
    case PacketKind::kTnt8:
    case PacketKind::kTnt64:
    case PacketKind::kFup:
    case PacketKind::kTip:
    case PacketKind::kTipPge:
    case PacketKind::kTipPgd:
    case PacketKind::kPip:
    case PacketKind::kPtw:
    case PacketKind::kExstop:
    case PacketKind::kCyc:
    case PacketKind::kTsc: break;
    default: packet.value = 0; break;
  }
  return packet;
}

inline bool same(const Packet& a, const Packet& b) {
  return a.kind == b.kind && a.size == b.size && a.ip_bytes == b.ip_bytes && a.bits == b.bits &&
         a.flag == b.flag && a.value == b.value;
}

// Every packet libipt finds from the first PSB on, going on at the next PSB after an error.
struct LibiptScan {
  std::vector<Packet> packets;
  uint64_t errors = 0;
};
inline LibiptScan libipt_scan(ByteSpan bytes) {
  LibiptScan out;
  LibiptDecoder decoder(bytes);
  while (decoder.sync_forward() == 0) {
    pt_packet packet;
    int status = 0;
    while ((status = decoder.next(packet)) >= 0) out.packets.push_back(translated(packet));
    if (status == -pte_eos) break;
    ++out.errors;
  }
  return out;
}

}  // namespace us::ipt::test
