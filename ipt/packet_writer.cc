#include "ipt/packet_writer.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace us::ipt {
namespace {

constexpr unsigned kStagedBits = 60;  // ten full short TNTs are written at once
constexpr size_t kMaxDeferred = 8;
constexpr uint8_t kBusRatio = 24;  // in CBR; nobody reads it

}  // namespace

bool TraceBuffer::accept(ByteSpan bytes) {
  if (bytes.size() > limit_ - bytes_.size()) return false;
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  return true;
}

Bytes TraceBuffer::take() { return std::exchange(bytes_, {}); }

PacketWriter::PacketWriter(TraceSink& sink, const PacketWriterConfig& config)
    : sink_(sink),
      config_(config),
      staging_(std::max(config.staging_bytes, kMinStaging)),
      cursor_(staging_.data()),
      mode_(config.initial_mode),
      varied_(config.variation.any()),
      random_(config.variation.seed) {
  US_CHECK(config.psb_period != 0);
  pending_.full = next_bits_full();
}

// ---- events

void PacketWriter::enable(uint64_t ip) {
  if (enabled_) return;
  make_room();
  const bool resuming = std::exchange(lost_, false);
  if (resuming) {
    put_extended(extended::kOvf);
    last_ip_ = 0;
  } else if (psb_due()) {
    put_psb_plus(std::nullopt);
  }
  if (!mode_sent_ || mode_pending_ || (config_.variation.mode_repeats && random_.one_in(3))) {
    mode_pending_ = true;
    put_pending_mode();
  }
  put_tip_family(opcode::kTipPge, ip);
  enabled_ = true;
  pending_.bits = 1;
  end_event(ip);
}

void PacketWriter::disable(std::optional<uint64_t> ip) {
  if (!usable()) {
    enabled_ = false;
    return refresh_fast_end();
  }
  force_out();
  if (ip) {
    put_tip_family(opcode::kTipPgd, *ip);
  } else {
    put_ip_as(opcode::kTipPgd, IpBytes::kSuppressed, 0);
  }
  enabled_ = false;
  refresh_fast_end();
}

void PacketWriter::exit(uint64_t rip) {
  if (!usable()) {
    enabled_ = false;
    return refresh_fast_end();
  }
  force_out();
  vary_at(rip);
  put_tip_family(opcode::kFup, rip);
  put_ip_as(opcode::kTipPgd, IpBytes::kSuppressed, 0);
  enabled_ = false;
  refresh_fast_end();
}

void PacketWriter::indirect_slow(uint64_t ip) {
  if (!enabled_) {
    pending_.bits = 1;
    return;
  }
  if (!usable()) return resume_after_overflow(ip, opcode::kFup);
  if (defer(ip)) return;
  force_out();
  put_pending_mode();
  put_tip_family(opcode::kTip, ip);
  end_event(ip);
}

void PacketWriter::async(uint64_t from, uint64_t to) {
  if (!enabled_) {
    pending_.bits = 1;
    return;
  }
  if (!usable()) return resume_after_overflow(to, opcode::kFup);
  force_out();
  vary_at(from);
  put_tip_family(opcode::kFup, from);
  put_pending_mode();
  put_tip_family(opcode::kTip, to);
  end_event(to);
}

void PacketWriter::cr3(uint64_t value) {
  cr3_ = value;
  if (!usable()) return;
  force_out();
  put_pip();
  refresh_fast_end();
}

void PacketWriter::exec_mode(uint8_t mode) {
  if (mode == mode_) return;
  mode_ = mode;
  mode_pending_ = true;
  refresh_fast_end();
}

void PacketWriter::overflow() {
  if (enabled_ && !lost_) lose();
}

void PacketWriter::psb(uint64_t rip) {
  // A changed mode not yet told belongs to a branch still to come.
  if (!usable() || mode_pending_) return;
  force_out();
  put_psb_plus(rip);
  refresh_fast_end();
}

void PacketWriter::flush() {
  if (usable()) force_out();
  hand_over();
  refresh_fast_end();
}

// ---- staging

// True when packets of an enabled trace may be written; there is room then.
bool PacketWriter::usable() {
  if (enabled_ && !lost_) make_room();
  return enabled_ && !lost_;
}

void PacketWriter::make_room() {
  if (static_cast<size_t>(staging_.data() + staging_.size() - cursor_) < kRoom) hand_over();
}

void PacketWriter::hand_over() {
  const auto size = static_cast<size_t>(cursor_ - staging_.data());
  if (size == 0) return;
  cursor_ = staging_.data();
  if (sink_.accept({staging_.data(), size})) {
    bytes_before_ += size;
  } else {
    lose();
  }
}

void PacketWriter::lose() {
  lost_ = true;
  ++overflows_;
  pending_.bits = 1;
  deferred_.clear();
  mode_sent_ = false;
  refresh_fast_end();
}

void PacketWriter::resume_after_overflow(uint64_t ip, uint8_t op) {
  lost_ = false;
  pending_.bits = 1;
  put_extended(extended::kOvf);
  last_ip_ = 0;
  put_tip_family(op, ip);
  refresh_fast_end();
}

void PacketWriter::end_event(uint64_t ip) {
  vary_at(ip);
  if (psb_due()) put_psb_plus(ip);
  refresh_fast_end();
}

void PacketWriter::refresh_fast_end() {
  if (!enabled_ || lost_ || varied_ || config_.long_tnt || mode_pending_) {
    fast_end_ = nullptr;
    return;
  }
  const uint64_t until_psb = next_psb_ > bytes_before_ ? next_psb_ - bytes_before_ : 0;
  fast_end_ = staging_.data() + std::min<uint64_t>(staging_.size() - kRoom, until_psb);
}

// ---- packets

void PacketWriter::flush_full_bits() {
  if (!usable()) {
    pending_.bits = 1;
    return;
  }
  put_pending_bits();
  if (varied_) put_noise();
  pending_.full = next_bits_full();
}

uint64_t PacketWriter::next_bits_full() {
  if (config_.variation.tnt_cuts) return 2ull << random_.below(kTnt64MaxBits);
  if (varied_) return 1ull << kTnt8MaxBits;
  return 1ull << (config_.long_tnt ? kTnt64MaxBits : kStagedBits);
}

// All that awaits a packet of another kind: TNTs, then the TIPs deferred behind them.
void PacketWriter::force_out() { put_pending_bits(); }

void PacketWriter::put_pending_bits() {
  if (!varied_ && !config_.long_tnt) return put_bits();
  unsigned n = 63 - static_cast<unsigned>(std::countl_zero(pending_.bits));
  while (n != 0) {
    unsigned now = std::min(n, kTnt64MaxBits);
    if (config_.variation.tnt_cuts) now = 1 + static_cast<unsigned>(random_.below(now));
    const bool as_long = now > kTnt8MaxBits || (config_.variation.tnt_cuts && random_.one_in(4));
    n -= now;
    put_tnt((pending_.bits >> n) & ((1ull << now) - 1), now, as_long);
  }
  pending_.bits = 1;
  for (const uint64_t ip : deferred_) put_tip_family(opcode::kTip, ip);
  deferred_.clear();
}

void PacketWriter::put_tnt(uint64_t bits, unsigned n, bool as_long) {
  const uint64_t payload = 1ull << n | bits;
  if (as_long) {
    put_extended(extended::kTnt64);
    put_value(payload, 6);
  } else {
    put(static_cast<uint8_t>(payload << 1));
  }
}

void PacketWriter::put_tip_family(uint8_t op, uint64_t ip) {
  const uint64_t changed = ip ^ last_ip_;
  last_ip_ = ip;
  put_ip_as(op, varied_form(changed, ip, smallest_form(changed, ip)), ip);
}

void PacketWriter::put_pending_mode() {
  if (!mode_pending_) return;
  put(opcode::kMode);
  put(mode_);
  mode_pending_ = false;
  mode_sent_ = true;
}

void PacketWriter::put_pip() {
  put_extended(extended::kPip);
  put_value((*cr3_ >> 5 & 0x7fffffffffff) << 1 | (config_.pip_non_root ? 1 : 0), 6);
}

// SDM 3C 35.3.7: PSB, then the state of everything a decoder cannot know, then PSBEND.
void PacketWriter::put_psb_plus(std::optional<uint64_t> rip) {
  for (size_t i = 0; i < kPsbBytes; i += 2) put_extended(extended::kPsb);
  last_ip_ = 0;
  mode_sent_ = false;
  put_psb_status(rip.has_value());
  if (rip) put_tip_family(opcode::kFup, *rip);
  put_extended(extended::kPsbEnd);
  const uint64_t period =
      config_.variation.psb_placement ? 64 + random_.below(4096) : config_.psb_period;
  next_psb_ = bytes_out() + period;
}

void PacketWriter::put_psb_status(bool with_mode) {
  const bool all = !config_.variation.psb_placement;
  if (config_.variation.timing && random_.one_in(2)) {
    put(opcode::kTsc);
    put_value(random_.next(), 7);
  }
  if (all || random_.one_in(2)) {
    put_extended(extended::kCbr);
    put_value(kBusRatio, 2);
  }
  if (cr3_ && (all || random_.one_in(2))) put_pip();
  if (config_.variation.timing && random_.one_in(2)) {
    put_extended(extended::kVmcs);
    put_value(random_.next(), 5);
  }
  if (!with_mode) return;
  put(opcode::kMode);
  put(mode_);
  mode_sent_ = true;
}

// ---- variation

bool PacketWriter::defer(uint64_t ip) {
  if (!config_.variation.deferred_tips || mode_pending_) return false;
  if (deferred_.size() == kMaxDeferred || random_.one_in(3)) return false;
  deferred_.push_back(ip);
  return true;
}

// At `ip`, with nothing pending: whatever a processor might put here.
void PacketWriter::vary_at(uint64_t ip) {
  if (!varied_) return;
  put_noise();
  const VariationConfig& may = config_.variation;
  if (mode_pending_) return;  // it belongs to the branch that is being written
  if (may.transparent_exits && random_.one_in(6)) put_transparent_exit(ip);
  if (may.psb_placement && random_.one_in(40)) put_psb_plus(ip);
}

void PacketWriter::put_transparent_exit(uint64_t ip) {
  put_tip_family(opcode::kFup, ip);
  put_ip_as(opcode::kTipPgd, IpBytes::kSuppressed, 0);
  put_noise();
  if (config_.variation.psb_placement && random_.one_in(10)) put_psb_plus(std::nullopt);
  if (!mode_sent_ || (config_.variation.mode_repeats && random_.one_in(3))) {
    mode_pending_ = true;
    put_pending_mode();
  }
  put_tip_family(opcode::kTipPge, ip);
}

void PacketWriter::put_noise() {
  if (config_.variation.padding && random_.one_in(3)) {
    for (uint64_t n = random_.below(9); n != 0; --n) put(opcode::kPad);
  }
  if (config_.variation.timing && random_.one_in(8)) put_timing();
}

// Power packets are left out: they come only with their own enable bit, and bind to others.
void PacketWriter::put_timing() {
  const uint64_t noise = random_.next();
  switch (random_.below(5)) {
    case 0: put_extended(extended::kCbr); return put_value(1 + noise % 0xff, 2);
    case 1: put(opcode::kMtc); return put_value(noise, 1);
    case 2: return put(static_cast<uint8_t>(noise << 3 | 3));  // CYC of one byte
    case 3: return put_value((noise << 8 & 0xfe00) | (noise << 3 & 0xf8) | 7, 2);  // CYC of two
    default: break;
  }
  put(opcode::kTsc);
  put_value(noise, 7);
  if (random_.one_in(2)) return;
  put_extended(extended::kTma);
  put_value(random_.next() & 0x01ff00ffff, 5);
}

IpBytes PacketWriter::varied_form(uint64_t changed, uint64_t ip, IpBytes smallest) {
  if (!config_.variation.ip_compression || random_.one_in(2)) return smallest;
  switch (random_.below(4)) {
    case 0: return changed >> 32 == 0 ? IpBytes::kUpdate32 : IpBytes::kFull;
    case 1: return changed >> 48 == 0 ? IpBytes::kUpdate48 : IpBytes::kFull;
    case 2: return sign_extend_48(ip) == ip ? IpBytes::kSignExtended48 : IpBytes::kFull;
    default: return IpBytes::kFull;
  }
}

}  // namespace us::ipt
