#include "replay-engine/pair/lag_control.h"

#include <algorithm>

namespace us::replay {

using std::chrono::nanoseconds;

void LagControl::appended(LogPosition position, nanoseconds now) {
  constexpr nanoseconds kApart = std::chrono::microseconds(500);
  if (!samples_.empty() && now - samples_.back().at < kApart) {
    samples_.back().position = position;
    return;
  }
  if (samples_.size() >= kSamplesMax) {
    // Every second one goes; the oldest, which says the lag, stays.
    std::deque<Sample> thinned;
    for (size_t i = 0; i < samples_.size(); i += 2) thinned.push_back(samples_[i]);
    samples_ = std::move(thinned);
  }
  samples_.push_back({position, now});
}

void LagControl::replayed(LogPosition position) {
  while (!samples_.empty() && samples_.front().position <= position) samples_.pop_front();
}

void LagControl::round_trip(nanoseconds measured) {
  round_trip_ = round_trip_.count() == 0 ? measured : (round_trip_ * 7 + measured) / 8;
}

nanoseconds LagControl::lag(nanoseconds now) const {
  return samples_.empty() ? nanoseconds(0) : std::max(nanoseconds(0), now - samples_.front().at);
}

nanoseconds LagControl::interval() const { return nanoseconds(static_cast<int64_t>(interval_ns_)); }

void LagControl::tick(nanoseconds now) {
  if (last_tick_.count() != 0 && now - last_tick_ < options_.period) return;
  last_tick_ = now;
  const nanoseconds behind = std::max(nanoseconds(0), lag(now) - round_trip_);
  interval_ns_ += options_.weight * (static_cast<double>(behind.count()) - interval_ns_);
  const double target = static_cast<double>(options_.target.count());
  const auto behind_ns = static_cast<double>(behind.count());
  if (interval_ns_ > target && behind_ns > target) {
    // While it helps already, more of it would only overshoot.
    if (behind_ns >= last_behind_ns_)
      slowdown_ = std::min(options_.slowdown_max, slowdown_ + options_.step);
  } else if (behind_ns < target) {
    // A secondary that has caught up needs nothing held back: let go by quarters.
    slowdown_ = slowdown_ < options_.step / 2 ? 0 : slowdown_ * 0.75;
  }
  last_behind_ns_ = behind_ns;
}

}  // namespace us::replay
