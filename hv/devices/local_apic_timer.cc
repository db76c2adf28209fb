// The local APIC's timer and its saved state. SDM 3A 11.5.4.
#include "hv/devices/local_apic.h"

namespace us::hv {

// SDM 3A figure 11-10: 000 divides by 2, ... 110 by 128, 111 by 1.
uint64_t LocalApic::divider() const {
  const unsigned code = (divide_config_ & 3) | ((divide_config_ >> 1) & 4);
  return code == 7 ? 1 : 2ull << code;
}

uint32_t LocalApic::current_count(GuestTsc now) const {
  if (!timer_running_) return 0;
  const uint64_t steps = scale_ticks(now.value - timer_base_.value, timer_hz_, kTscHz) / divider();
  const uint64_t end = count_at_base_ + periods_ * initial_count_;
  return steps >= end ? 0 : static_cast<uint32_t>(end - steps);
}

void LocalApic::start_timer(uint32_t count) {
  timer_base_ = time_.now();
  count_at_base_ = count;
  periods_ = 0;
  timer_running_ = count != 0;
  rearm();
}

void LocalApic::write_timer_lvt(uint32_t value) {
  const GuestTsc now = time_.now();
  advance(now);
  const TimerMode before = timer_mode();
  const auto after = static_cast<TimerMode>((value >> 17) & 3);
  const uint32_t left = current_count(now);
  lvt_[kLvtTimer] = value;
  if (before == after) return;
  if (before == TimerMode::kTscDeadline || after == TimerMode::kTscDeadline) {
    // SDM 3A 11.5.4.1: going to or from TSC-deadline mode disarms the timer.
    tsc_deadline_ = 0;
    timer_running_ = false;
    rearm();
  } else {
    start_timer(left);
  }
}

void LocalApic::rearm() {
  deadline_.reset();
  if (timer_mode() == TimerMode::kTscDeadline) {
    if (tsc_deadline_ == 0) return;
    const GuestTsc now = time_.now();
    const uint64_t guest_now = now.value + time_.guest_offset();
    if (tsc_deadline_ <= guest_now) {
      deadline_ = now;
    } else if (tsc_deadline_ - guest_now <= ~0ull - now.value) {
      deadline_ = now + (tsc_deadline_ - guest_now);
    }
    return;
  }
  if (!timer_running_) return;
  const uint64_t steps = count_at_base_ + periods_ * initial_count_;
  deadline_ = timer_base_ + scale_ticks_up(steps * divider(), kTscHz, timer_hz_);
}

// Several periods that passed at once give one interrupt: it would only be pending once.
void LocalApic::advance(GuestTsc now) {
  if (!deadline_ || now < *deadline_) return;
  if (timer_mode() == TimerMode::kTscDeadline) {
    tsc_deadline_ = 0;  // SDM 3A 11.5.4.1: disarmed as it fires
  } else if (timer_mode() == TimerMode::kPeriodic && initial_count_ != 0) {
    const uint64_t steps =
        scale_ticks(now.value - timer_base_.value, timer_hz_, kTscHz) / divider();
    const uint64_t past = steps - count_at_base_;  // deadline reached, so not negative
    periods_ = past / initial_count_ + 1;
  } else {
    timer_running_ = false;
  }
  rearm();
  fire_lvt(kLvtTimer);
}

void LocalApic::save(ByteWriter& out) const {
  out.put(apic_base_);
  out.put(id_);
  out.put(tpr_);
  out.put(ldr_);
  out.put(dfr_);
  out.put(svr_);
  out.put(esr_);
  out.put(esr_pending_);
  out.put(icr_);
  for (uint32_t entry : lvt_) out.put(entry);
  for (const Bitmap* map : {&irr_, &isr_, &tmr_}) {
    for (uint32_t word : *map) out.put(word);
  }
  out.put(static_cast<uint8_t>(lint0_level_));
  out.put(static_cast<uint8_t>(nmi_pending_));
  out.put(initial_count_);
  out.put(divide_config_);
  out.put(static_cast<uint8_t>(timer_running_));
  out.put(timer_base_.value);
  out.put(count_at_base_);
  out.put(periods_);
  out.put(tsc_deadline_);
  out.put(static_cast<uint8_t>(deadline_.has_value()));
  out.put(deadline_.value_or(GuestTsc()).value);
}

void LocalApic::load(ByteReader& in) {
  apic_base_ = in.get<uint64_t>();
  id_ = in.get<uint32_t>() & 0xff;
  tpr_ = in.get<uint8_t>();
  ldr_ = in.get<uint32_t>();
  dfr_ = in.get<uint32_t>();
  svr_ = in.get<uint32_t>();
  esr_ = in.get<uint32_t>();
  esr_pending_ = in.get<uint32_t>();
  icr_ = in.get<uint64_t>();
  for (unsigned i = 0; i < kLvtCount; ++i) {
    const auto entry = in.get<uint32_t>();
    if ((entry & ~lvt_writable(i)) != 0) in.fail();
    lvt_[i] = entry;
  }
  for (Bitmap* map : {&irr_, &isr_, &tmr_}) {
    for (uint32_t& word : *map) word = in.get<uint32_t>();
  }
  irr_highest_ = highest(irr_);
  isr_highest_ = highest(isr_);
  lint0_level_ = in.get<uint8_t>() != 0;
  nmi_pending_ = in.get<uint8_t>() != 0;
  initial_count_ = in.get<uint32_t>();
  divide_config_ = in.get<uint32_t>() & 0xb;
  timer_running_ = in.get<uint8_t>() != 0;
  timer_base_ = GuestTsc(in.get<uint64_t>());
  count_at_base_ = in.get<uint64_t>();
  periods_ = in.get<uint64_t>();
  tsc_deadline_ = in.get<uint64_t>();
  const bool armed = in.get<uint8_t>() != 0;
  const GuestTsc deadline(in.get<uint64_t>());
  deadline_.reset();
  if (armed) deadline_ = deadline;
}

}  // namespace us::hv
