// The processor's side: what packets there are, and in which order.
#include "hv/kvm/model/trace_model.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "hv/cpu/trace.h"
#include "ipt/scanner.h"

namespace us::hv::kvm::model {
namespace {

constexpr uint64_t kHostCr3 = 0x1234'5000;

bool has_ip(ipt::PacketKind kind) {
  return kind == ipt::PacketKind::kTip || kind == ipt::PacketKind::kTipPge ||
         kind == ipt::PacketKind::kTipPgd || kind == ipt::PacketKind::kFup;
}

uint8_t opcode_of(ipt::PacketKind kind) {
  switch (kind) {
    case ipt::PacketKind::kTip: return ipt::opcode::kTip;
    case ipt::PacketKind::kTipPge: return ipt::opcode::kTipPge;
    case ipt::PacketKind::kTipPgd: return ipt::opcode::kTipPgd;
    default: return ipt::opcode::kFup;
  }
}

}  // namespace

TraceModel::TraceModel(const TraceModelOptions& options)
    : options_(options), random_(options.seed) {}

TraceModel::~TraceModel() = default;

void TraceModel::enter(Cpu& c) {
  if (inside_) return;
  inside_ = true;
  // Once there has been an event the guest stays traced: without one its packets go nowhere.
  if (writer_ == nullptr && current_ == nullptr) return;
  if (writer_ == nullptr) {
    ipt::PacketWriterConfig config;
    config.psb_period = options_.psb_period;
    config.staging_bytes = ipt::PacketWriter::kMinStaging;
    config.pip_non_root = true;
    config.initial_mode = exec_mode(c);
    config.variation = options_.variation;
    ipt::TraceSink& self = *this;
    writer_ = std::make_unique<ipt::PacketWriter>(self, config);
  }
  if (c.trace == nullptr) {
    c.trace = writer_.get();
    c.link_slot = nullptr;
    update_mode(c);
  }
  guest_cr3_ = c.cr3;
  writer_->cr3(c.cr3);
  writer_->exec_mode(exec_mode(c));
  writer_->enable(linear_ip(c, c.rip));
}

void TraceModel::leave(Cpu& c) {
  if (!inside_) return;
  inside_ = false;
  if (c.trace == nullptr) return;
  writer_->exit(linear_ip(c, c.rip));
  writer_->flush();
  if (std::exchange(damage_, false)) put(Bytes{0xb9, 0xb9});
  if (current_ != nullptr && options_.publish_one_in != 0 &&
      random_.next() % options_.publish_one_in == 0) {
    // The thread was scheduled out and in again.
    ++pauses;
    stop_in_host();
    publish(*current_);
    start_in_host();
  }
}

// The writer's packets, whole ones, become the processor's.
bool TraceModel::accept(ByteSpan bytes) {
  for (size_t at = 0; at < bytes.size();) {
    ipt::Packet packet;
    const auto status = ipt::parse_packet(bytes.data() + at, bytes.size() - at, 0, packet);
    US_CHECK(status == ipt::ParseStatus::kOk, "the writer wrote no packet");
    guest_packet(packet, bytes.subspan(at, packet.size));
    at += packet.size;
  }
  return true;
}

void TraceModel::guest_packet(const ipt::Packet& packet, ByteSpan bytes) {
  using ipt::PacketKind;
  uint64_t ip = 0;
  if (packet.kind == PacketKind::kPsb) last_in_ = 0;
  if (has_ip(packet.kind) && packet.ip_bytes != 0)
    ip = last_in_ = ipt::expand_ip(packet.ip_bytes, packet.value, last_in_);
  if (overflow_ && writer_in_guest_ && !in_psb_) {
    overflow_ = false;
    dropping_ = true;
    last_ip_ = 0;
    put(Bytes{ipt::opcode::kExtended, ipt::extended::kOvf});
  }
  if (dropping_) {
    if (packet.kind == PacketKind::kPsb || packet.kind == PacketKind::kPsbEnd)
      in_psb_ = packet.kind == PacketKind::kPsb;
    if (packet.kind != PacketKind::kFup || in_psb_) return;
    dropping_ = false;
  }
  switch (packet.kind) {
    case PacketKind::kPsb:
      last_ip_ = 0;
      in_psb_ = true;
      // Between exit and entry the processor is in the host.
      if (!guest_only_ && !writer_in_guest_) return host_psb();
      return put(bytes);
    case PacketKind::kPsbEnd:
      if (std::exchange(in_psb_, false) && !guest_only_ && !writer_in_guest_) return;
      return put(bytes);
    case PacketKind::kOvf:
      last_in_ = last_ip_ = 0;
      in_psb_ = false;
      return put(bytes);
    case PacketKind::kModeExec:
      guest_mode_ = static_cast<uint8_t>(packet.value);
      if (guest_only_ || writer_in_guest_) put_mode(guest_mode_);
      return;
    default: break;
  }
  if (in_psb_ && !guest_only_ && !writer_in_guest_) return;  // the host's has been put
  if (packet.kind == PacketKind::kTipPge) {
    writer_in_guest_ = true;
    return guest_only_ ? put_ip(ipt::opcode::kTipPge, ip) : enter_from_host(ip);
  }
  if (packet.kind == PacketKind::kTipPgd) {
    writer_in_guest_ = false;
    if (guest_only_) return put(bytes);
    put_pip(kHostCr3, false);
    if (mode_ != ipt::kExecLong) put_mode(ipt::kExecLong);
    put_ip(ipt::opcode::kTip, host_ip());
    return host_stretch(1 + random_.next() % 6);
  }
  if (packet.kind == PacketKind::kFup && !in_psb_) writer_in_guest_ = true;
  if (has_ip(packet.kind)) return put_ip(opcode_of(packet.kind), ip);
  put(bytes);
}

// Branches and calls of the kernel and of us, an interrupt, a PSB.
void TraceModel::host_stretch(unsigned packets) {
  ++host_stretches;
  for (; packets != 0; --packets) {
    switch (random_.next() % 6) {
      case 0:
      case 1: put(Bytes{static_cast<uint8_t>(0x04 + 2 * (random_.next() % 0x7d))}); break;
      case 2:
      case 3: put_ip(ipt::opcode::kTip, host_ip()); break;
      case 4:
        put_ip(ipt::opcode::kFup, host_ip());
        put_ip(ipt::opcode::kTip, 0x5555'5555'0000 + random_.next() % 0x10000);
        break;
      default:
        if (random_.next() % 4 == 0) host_psb();
        put(Bytes{ipt::opcode::kExtended, ipt::extended::kVmcs, 1, 2, 3, 4, 5, 0, 0});
        break;
    }
  }
}

void TraceModel::host_psb() {
  put({ipt::kPsbPacket, ipt::kPsbBytes});
  last_ip_ = 0;
  put_pip(kHostCr3, false);
  put_mode(ipt::kExecLong);
  put_ip(ipt::opcode::kFup, host_ip());
  put(Bytes{ipt::opcode::kExtended, ipt::extended::kPsbEnd});
}

void TraceModel::enter_from_host(uint64_t ip) {
  host_stretch(static_cast<unsigned>(random_.next() % 4));
  put_pip(guest_cr3_, true);
  if (mode_ != guest_mode_) put_mode(guest_mode_);
  put_ip(ipt::opcode::kTip, ip);
}

// Around IA32_RTIT_CTL's being written, in the kernel.
void TraceModel::start_in_host() {
  forget_last_ip();
  if (!guest_only_) put_ip(ipt::opcode::kTipPge, host_ip());
}

void TraceModel::stop_in_host() {
  if (guest_only_) return;
  put_ip(ipt::opcode::kFup, host_ip());
  put(Bytes{ipt::opcode::kTipPgd});
}

void TraceModel::fill(size_t left) {
  US_CHECK(current_ != nullptr && current_->aux_bytes > left);
  const uint64_t tail = __atomic_load_n(&current_->page().aux_tail, __ATOMIC_ACQUIRE);
  put(Bytes(current_->aux_bytes - left - (current_->written - tail), ipt::opcode::kPad));
}

void TraceModel::put_ip(uint8_t op, uint64_t ip) {
  const uint64_t changed = ip ^ std::exchange(last_ip_, ip);
  const auto form = changed >> 16 == 0              ? ipt::IpBytes::kUpdate16
                    : changed >> 32 == 0            ? ipt::IpBytes::kUpdate32
                    : ipt::sign_extend_48(ip) == ip ? ipt::IpBytes::kSignExtended48
                                                    : ipt::IpBytes::kFull;
  const auto ip_bytes = static_cast<unsigned>(form);
  uint8_t packet[9] = {static_cast<uint8_t>(op | ip_bytes << 5)};
  std::memcpy(packet + 1, &ip, sizeof ip);
  put({packet, 1 + ipt::ip_payload_bytes(ip_bytes)});
}

void TraceModel::put_pip(uint64_t cr3, bool non_root) {
  const uint64_t payload = (cr3 >> 5 & 0x7fff'ffff'ffff) << 1 | (non_root ? 1 : 0);
  uint8_t packet[ipt::kPipBytes] = {ipt::opcode::kExtended, ipt::extended::kPip};
  std::memcpy(packet + 2, &payload, 6);
  put(packet);
}

void TraceModel::put_mode(uint8_t mode) {
  mode_ = mode;
  put(Bytes{ipt::opcode::kMode, mode});
}

}  // namespace us::hv::kvm::model
