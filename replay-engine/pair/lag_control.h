// How far the secondary's execution is behind the primary's, in time, and what to do about it. The
// vLockstep interval is a moving average of that lag with the round trip taken off; while it stays
// above the target, the primary's vCPU gives up a few percent more of its time, as long as that
// does not help, and gets it back quickly once the secondary has caught up.
#pragma once

#include <chrono>
#include <deque>

#include "base/types.h"

namespace us::replay {

struct LagOptions {
  std::chrono::nanoseconds target{std::chrono::milliseconds(100)};
  std::chrono::nanoseconds period{std::chrono::milliseconds(50)};  // between two adjustments
  double step = 0.02;  // of the vCPU's time, a period above target
  double slowdown_max = 0.90;
  double weight = 0.2;  // of the newest lag in the average, a period
};

class LagControl {
 public:
  explicit LagControl(const LagOptions& options = {}) : options_(options) {}

  // The primary wrote its log up to `position` at `now`.
  void appended(LogPosition position, std::chrono::nanoseconds now);
  // The secondary's machine is known to stand at `position`.
  void replayed(LogPosition position);
  void round_trip(std::chrono::nanoseconds measured);
  // Adjusts; call at least every period.
  void tick(std::chrono::nanoseconds now);

  std::chrono::nanoseconds lag(std::chrono::nanoseconds now) const;
  std::chrono::nanoseconds interval() const;
  std::chrono::nanoseconds round_trip() const { return round_trip_; }
  // Part of its time that the vCPU gives up, 0 to slowdown_max.
  double slowdown() const { return slowdown_; }

 private:
  struct Sample {
    LogPosition position;
    std::chrono::nanoseconds at;
  };
  // Enough for a lag of seconds at one sample a millisecond; older ones are thinned.
  static constexpr size_t kSamplesMax = 8192;

  LagOptions options_;
  std::deque<Sample> samples_;  // written and not known to be replayed, oldest first
  std::chrono::nanoseconds round_trip_{0};
  std::chrono::nanoseconds last_tick_{0};
  double interval_ns_ = 0;
  double last_behind_ns_ = 0;
  double slowdown_ = 0;
};

}  // namespace us::replay
