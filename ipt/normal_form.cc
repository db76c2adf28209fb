#include "ipt/normal_form.h"

#include "base/check.h"

namespace us::ipt {

NormalFormSink::NormalFormSink(const NormalFormOptions& options) : options_(options) {
  begin_streams();
}

void NormalFormSink::begin_streams() {
  fast_.bits = 0;
  fast_.held = 0;
  fast_.branches = branch_leaves_.data();
  fast_.targets = target_leaves_.data();
  fast_.branches_end = branch_leaves_.data() + kLeaves * kLeafBytes;
  fast_.targets_end = target_leaves_.data() + kLeaves * kTargetsPerLeaf;
}

void NormalFormSink::hash_branch_leaves() {
  const auto bytes = static_cast<size_t>(fast_.branches - branch_leaves_.data());
  US_CHECK(bytes < branch_leaves_.size());
  size_t hashed = 0;
  for (; bytes - hashed >= kLeafBytes; hashed += kLeafBytes) {
    branch_hasher_.add_leaf({branch_leaves_.data() + hashed, kLeafBytes});
  }
  // One more than the whole bytes: the one being filled.
  std::memmove(branch_leaves_.data(), branch_leaves_.data() + hashed, bytes - hashed + 1);
  fast_.branches = branch_leaves_.data() + (bytes - hashed);
}

void NormalFormSink::hash_target_leaves() {
  const auto words = static_cast<size_t>(fast_.targets - target_leaves_.data());
  US_CHECK(words <= target_leaves_.size());
  size_t hashed = 0;
  for (; words - hashed >= kTargetsPerLeaf; hashed += kTargetsPerLeaf) {
    target_hasher_.add_leaf(
        {reinterpret_cast<const uint8_t*>(target_leaves_.data() + hashed), kLeafBytes});
  }
  std::memmove(target_leaves_.data(), target_leaves_.data() + hashed, (words - hashed) * 8);
  fast_.targets = target_leaves_.data() + (words - hashed);
}

uint64_t NormalFormSink::branches() const {
  const auto bytes = static_cast<uint64_t>(fast_.branches - branch_leaves_.data());
  return branch_hasher_.leaves() * kBranchesPerLeaf + bytes * 8 + fast_.held;
}

uint64_t NormalFormSink::targets() const {
  const auto words = static_cast<uint64_t>(fast_.targets - target_leaves_.data());
  return target_hasher_.leaves() * kTargetsPerLeaf + words;
}

void NormalFormSink::packet(const Packet& packet) {
  if ((state_ & kInPsb) != 0) {
    status_packet(packet);
  } else if ((state_ & kInHost) != 0) {
    host_packet(packet);
  } else {
    flow_packet(packet);
  }
}

// Between PSB and PSBEND: everything is a copy of known state (SDM 3C 35.3.7).
void NormalFormSink::status_packet(const Packet& packet) {
  switch (packet.kind) {
    case PacketKind::kPsbEnd: state_ &= ~kInPsb; break;
    case PacketKind::kOvf:  // ends a PSB+ too
      state_ &= ~kInPsb;
      on_overflow();
      break;
    case PacketKind::kModeExec:
      if (!mode_) mode_ = packet.value & kExecModeMask;
      if (!any_flow()) first_mode_ = mode_;
      break;
    case PacketKind::kPip:
      if (options_.system_wide && !any_flow() && !packet.flag) state_ |= kInHost;
      break;
    case PacketKind::kTnt8:
    case PacketKind::kTnt64:
    case PacketKind::kTip:
    case PacketKind::kTipPge:
    case PacketKind::kTipPgd: ++loss_.errors; break;
    default: break;
  }
}

void NormalFormSink::flow_packet(const Packet& packet) {
  switch (packet.kind) {
    case PacketKind::kTnt8:
    case PacketKind::kTnt64: on_tnt(packet); break;
    case PacketKind::kTip: on_tip(packet.ip); break;
    case PacketKind::kFup: on_fup(packet.ip); break;
    case PacketKind::kTipPgd: on_disable(packet); break;
    case PacketKind::kTipPge: on_enable(packet.ip); break;
    case PacketKind::kPip: on_pip(packet); break;
    case PacketKind::kModeExec: on_mode(packet.value & kExecModeMask); break;
    case PacketKind::kOvf: on_overflow(); break;
    case PacketKind::kPsb: state_ |= kInPsb; break;
    case PacketKind::kModeTsx:
      // Without the abort bit its FUP only says where (SDM 3C 35.4.2.8).
      if ((packet.value & 2) == 0) state_ |= kFupIsStatus;
      break;
    case PacketKind::kMwait: state_ |= kFupIsStatus; break;
    case PacketKind::kPtw:
    case PacketKind::kExstop:
    case PacketKind::kBep:
    case PacketKind::kCfe:
    case PacketKind::kTrig:
      if (packet.flag) state_ |= kFupIsStatus;
      break;
    default: break;
  }
}

// Root operation: nothing counts until the VM entry, a PIP with NR=1 and then a TIP.
void NormalFormSink::host_packet(const Packet& packet) {
  switch (packet.kind) {
    case PacketKind::kPip: state_ = packet.flag ? state_ | kEntering : state_ & ~kEntering; break;
    case PacketKind::kTip:
    case PacketKind::kTipPge:
      if ((state_ & kEntering) == 0) break;
      state_ &= ~(kEntering | kInHost);
      on_enable(packet.ip);
      break;
    case PacketKind::kModeExec:
      if ((state_ & kEntering) != 0) on_mode(packet.value & kExecModeMask);
      break;
    case PacketKind::kOvf: on_overflow(); break;
    case PacketKind::kPsb: state_ |= kInPsb; break;
    default: break;
  }
}

void NormalFormSink::on_tnt(const Packet& packet) {
  settle_lone_fup();
  state_ &= ~kFupIsStatus;
  if ((state_ & kDisabled) != 0) {
    ++loss_.errors;
    return;
  }
  flow_seen_ = true;
  fast_.tnt(packet.value, packet.bits);
  hash_full_leaves();
}

void NormalFormSink::on_tip(uint64_t ip) {
  if ((state_ & kDisabled) != 0) {
    ++loss_.errors;
    return;
  }
  flow_seen_ = true;
  if ((state_ & kFupPending) != 0) {
    event(AsyncKind::kEvent, from_ip_, ip, from_branches_, from_targets_);
    state_ &= ~kFupPending;
    return;
  }
  state_ &= ~kFupIsStatus;
  fast_.tip(ip);
  hash_full_leaves();
}

void NormalFormSink::on_fup(uint64_t ip) {
  if ((state_ & kFupIsStatus) != 0) {
    state_ &= ~kFupIsStatus;
    return;
  }
  if ((state_ & kDisabled) != 0) {
    ++loss_.errors;
    return;
  }
  settle_lone_fup();
  flow_seen_ = true;
  state_ |= kFupPending;
  from_ip_ = ip;
  // A FUP forces out every TNT and TIP before it, so these are the same however they were packed.
  from_branches_ = branches();
  from_targets_ = targets();
}

void NormalFormSink::settle_lone_fup() {
  if ((state_ & kFupPending) == 0) return;
  event(AsyncKind::kLoneFup, from_ip_, 0, from_branches_, from_targets_);
  state_ &= ~kFupPending;
}

void NormalFormSink::on_disable(const Packet& packet) {
  if ((state_ & kDisabled) != 0) {
    ++loss_.errors;
    return;
  }
  flow_seen_ = true;
  if ((state_ & kFupPending) != 0) {
    pause_at_exit();
    return;
  }
  pause_ = Pause::kStop;
  from_ip_ = packet.ip_bytes == 0 ? 0 : packet.ip;
  from_branches_ = branches();
  from_targets_ = targets();
  state_ = (state_ | kDisabled) & ~kFupIsStatus;
  enabled_known_ = false;
}

void NormalFormSink::pause_at_exit() {
  pause_ = Pause::kExit;
  state_ = (state_ | kDisabled) & ~kFupPending;
  enabled_known_ = false;
}

void NormalFormSink::on_enable(uint64_t ip) {
  // Enabled twice: a TIP.PGD was lost. After an overflow that is expected.
  if (enabled_known_ && (state_ & kFupIsStatus) == 0) ++loss_.errors;
  settle_lone_fup();
  if (!any_flow()) {
    first_ip_ = ip;
    first_mode_ = mode_;
  }
  if (pause_ == Pause::kExit && ip - from_ip_ > kMaxInstructionBytes) {
    event(AsyncKind::kEvent, from_ip_, ip, from_branches_, from_targets_);
  } else if (pause_ == Pause::kStop) {
    event(AsyncKind::kStop, from_ip_, ip, from_branches_, from_targets_);
  }
  pause_ = Pause::kNone;
  flow_seen_ = true;
  enabled_known_ = true;
  state_ &= ~(kDisabled | kFupIsStatus);
}

void NormalFormSink::on_pip(const Packet& packet) {
  if (options_.system_wide && !packet.flag) {
    // VM exit: FUP(guest), PIP(host, NR=0), TIP(host).
    if ((state_ & kFupPending) != 0) {
      flow_seen_ = true;
      pause_at_exit();
    }
    state_ |= kInHost;
    return;
  }
  // Around exits CR3 is status; the guest's own writes come while it is traced.
  if ((state_ & kDisabled) != 0 || last_cr3_ == packet.value) return;
  last_cr3_ = packet.value;
  address_spaces_.add({packet.value});
}

void NormalFormSink::on_mode(uint8_t mode) {
  if (mode_ == mode) return;
  // Before anything happened it says where the epoch starts, not that something changed.
  if (mode_ && any_flow()) modes_.add({mode});
  mode_ = mode;
}

void NormalFormSink::on_overflow() {
  ++loss_.overflows;
  // What was pending is lost with the rest; next is a FUP, or a TIP.PGE (SDM 3C 35.3.8).
  state_ = (state_ & kInHost) | kFupIsStatus;
  pause_ = Pause::kNone;
  enabled_known_ = false;
  mode_.reset();
}

void NormalFormSink::damage(uint64_t) {
  ++loss_.errors;
  state_ = 0;
  pause_ = Pause::kNone;
  enabled_known_ = false;
  mode_.reset();
}

void NormalFormSink::note_aux_flags(uint32_t flags) {
  loss_.aux_flags |= flags;
  state_ = 0;
  pause_ = Pause::kNone;
  enabled_known_ = false;
  mode_.reset();
}

void NormalFormSink::note_position(uint64_t ip) {
  if (enabled_known_) return;  // the guest was not seen leaving: something is lost
  on_enable(ip);
  on_fup(ip);
  pause_at_exit();
}

void NormalFormSink::note_delivery(uint64_t from, uint64_t to) {
  if (enabled_known_) return;
  on_enable(from);
  on_fup(from);
  on_tip(to);
  on_fup(to);
  pause_at_exit();
}

void NormalFormSink::event(AsyncKind kind, uint64_t from, uint64_t to, uint64_t branches,
                           uint64_t targets) {
  events_.add({static_cast<uint64_t>(kind), from, to, branches, targets});
}

StreamDigest NormalFormSink::finish_branches() {
  const uint64_t items = branches();
  const auto bytes = static_cast<size_t>(fast_.branches - branch_leaves_.data());
  // The byte after the whole ones already holds the rest, zeros below.
  const size_t used = bytes + (fast_.held != 0 ? 1 : 0);
  if (used != 0) branch_hasher_.add_leaf({branch_leaves_.data(), used});
  return branch_hasher_.finish(items);
}

StreamDigest NormalFormSink::finish_targets() {
  const uint64_t items = targets();
  const auto used = static_cast<size_t>(fast_.targets - target_leaves_.data());
  if (used != 0) {
    target_hasher_.add_leaf(
        {reinterpret_cast<const uint8_t*>(target_leaves_.data()), used * sizeof(uint64_t)});
  }
  return target_hasher_.finish(items);
}

EpochDigest NormalFormSink::end_epoch(const EpochBounds& bounds) {
  settle_lone_fup();
  EpochDigest out;
  out.setup = options_.setup;
  out.bounds = bounds;
  out.loss = std::exchange(loss_, {});
  out.first_ip = std::exchange(first_ip_, std::nullopt);
  out.first_mode = std::exchange(first_mode_, mode_);
  if (pause_ == Pause::kExit) out.last_ip = from_ip_;
  out.streams = {finish_branches(), finish_targets(), events_.finish(), address_spaces_.finish(),
                 modes_.finish()};
  begin_streams();
  if (pause_ != Pause::kNone) pause_ = Pause::kEpochEnd;
  flow_seen_ = false;
  last_cr3_.reset();
  return out;
}

EpochDigest NormalForm::end_epoch(const EpochBounds& bounds) {
  if (scanner_.pending_bytes() != 0) sink_.note_cut_packet();
  const uint64_t skipped = scanner_.skipped_bytes();
  sink_.note_skipped(skipped - std::exchange(skipped_before_, skipped));
  // Before the first byte there is nothing to be out of step with: the guest has not run yet.
  if (scanner_.synced() || scanner_.bytes_fed() == 0) return sink_.end_epoch(bounds);
  // Out of step: neither this epoch nor the beginning of the next was seen whole.
  sink_.note_error();
  EpochDigest out = sink_.end_epoch(bounds);
  sink_.note_error();
  return out;
}

}  // namespace us::ipt
