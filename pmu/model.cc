#include "pmu/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace us::pmu {
namespace {

// An alarm further off than this looks no further ahead for SMIs.
constexpr size_t kSmisAheadMax = 100'000;

}  // namespace

PmuModel::PmuModel(const ModelOptions& options, std::function<Retired()> retired)
    : options_(options),
      retired_(std::move(retired)),
      skid_random_(options.seed),
      fault_random_(options.seed ^ 0x6661756c74),
      smi_random_(options.seed ^ 0x736d69) {
  US_CHECK(options_.period_min > 0, "a minimum period of 0");
}

const PmuModel::Smi& PmuModel::smi(size_t index) {
  const Misbehaviour& bad = options_.misbehaviour;
  while (smis_.size() <= index) {
    const double gap =
        -std::log(1.0 - smi_random_.unit()) * static_cast<double>(bad.smi_interval_branches);
    const uint64_t last = smis_.empty() ? 0 : smis_.back().at;
    smis_.push_back({last + 1 + static_cast<uint64_t>(gap),
                     1 + smi_random_.below(std::max<uint64_t>(bad.smi_branches_max, 1))});
  }
  return smis_[index];
}

uint64_t PmuModel::counted(const Retired& retired) {
  if (options_.misbehaviour.smi_interval_branches != 0) {
    while (smi(smis_past_).at <= retired.conditional) leaked_ += smis_[smis_past_++].leaks;
  }
  return (options_.misbehaviour.taken_only ? retired.taken : retired.conditional) + leaked_;
}

Result<Branches, CounterError> PmuModel::read() { return Branches(counted(retired_())); }

uint64_t PmuModel::real_count_after(const Retired& retired, uint64_t distance) {
  uint64_t at = retired.conditional;
  if (options_.misbehaviour.taken_only && retired.taken != 0) {
    // The share of taken branches so far stands for what is to come.
    const double share =
        static_cast<double>(retired.taken) / static_cast<double>(retired.conditional);
    distance = static_cast<uint64_t>(static_cast<double>(distance) / share);
  }
  if (options_.misbehaviour.smi_interval_branches != 0) {
    for (size_t i = smis_past_; i < smis_past_ + kSmisAheadMax; ++i) {
      const Smi& next = smi(i);
      const uint64_t gap = next.at - at;
      if (distance <= gap) break;
      distance -= gap;
      at = next.at;
      if (distance <= next.leaks) return at;
      distance -= next.leaks;
    }
  }
  return at + std::min(distance, ~uint64_t{0} - at);
}

bool PmuModel::throttled(const Retired& retired) {
  const Misbehaviour& bad = options_.misbehaviour;
  if (bad.throttle_arms == 0) return false;
  if (retired.conditional - window_begin_ >= bad.throttle_window_branches) {
    window_begin_ = retired.conditional;
    window_arms_ = 0;
  }
  return ++window_arms_ > bad.throttle_arms;
}

Result<Done, CounterError> PmuModel::arm(Branches now, Branches target) {
  disarm();
  if (target <= now) return CounterError::kPast;
  uint64_t distance = (target - now).value;
  if (distance < options_.period_min) return CounterError::kTooClose;
  const Misbehaviour& bad = options_.misbehaviour;
  const Retired retired = retired_();
  (void)counted(retired);
  ++health_.alarms_armed;
  armed_ = true;
  target_ = target.value;
  distance = std::max(distance, bad.hidden_period_min);
  const uint64_t overflow = real_count_after(retired, distance);
  const uint64_t skid = options_.skid.draw(skid_random_);
  uint64_t arrives = overflow + std::min(skid, ~uint64_t{0} - overflow);
  if (throttled(retired)) {
    ++health_.throttled;
    arrives = std::max(arrives, window_begin_ + bad.throttle_window_branches);
  }
  if (!fault_random_.one_in(bad.lose_one_in)) interrupt_at_ = arrives;
  return Done{};
}

void PmuModel::disarm() {
  if (armed_ && counted(retired_()) >= target_) ++health_.alarms_missed;
  armed_ = false;
  interrupt_at_.reset();
}

void PmuModel::on_interrupt() {
  US_CHECK(armed_ && interrupt_at_, "an interrupt without an alarm");
  const Retired retired = retired_();
  US_CHECK(retired.conditional >= *interrupt_at_, "an interrupt at {} that is due at {}",
           retired.conditional, *interrupt_at_);
  ++health_.alarms_fired;
  const uint64_t count = counted(retired);
  if (count > target_) health_.skid_max = std::max(health_.skid_max, count - target_);
  armed_ = false;
  interrupt_at_.reset();
  on_host_interrupt();
}

void PmuModel::on_host_interrupt() {
  const Misbehaviour& bad = options_.misbehaviour;
  if (!fault_random_.one_in(bad.overcount_one_in)) return;
  leaked_ += bad.overcount_branches;
  if (!interrupt_at_) return;
  // The alarm's counter ran on too.
  const uint64_t now = retired_().conditional;
  const uint64_t left = *interrupt_at_ > now ? *interrupt_at_ - now : 0;
  *interrupt_at_ = now + (left > bad.overcount_branches ? left - bad.overcount_branches : 0);
}

}  // namespace us::pmu
