#include "replay-engine/pair/hold_times.h"

#include <algorithm>
#include <bit>

namespace us::replay {

unsigned HoldTimes::bucket_of(uint64_t ns) {
  if (ns < kSteps) return static_cast<unsigned>(ns);
  const auto log = static_cast<unsigned>(std::bit_width(ns)) - 1;
  return (log - 2) * kSteps + static_cast<unsigned>((ns >> (log - 3)) & (kSteps - 1));
}

uint64_t HoldTimes::end_of(unsigned bucket) {
  if (bucket < kSteps) return bucket;
  const unsigned log = bucket / kSteps + 2;
  return ((kSteps + bucket % kSteps + uint64_t{1}) << (log - 3)) - 1;
}

void HoldTimes::add(std::chrono::nanoseconds d) {
  const auto ns = static_cast<uint64_t>(std::max<int64_t>(d.count(), 0));
  ++buckets_[bucket_of(ns)];
  ++count_;
  max_ = std::max(max_, d);
}

std::chrono::nanoseconds HoldTimes::quantile(double fraction) const {
  const auto wanted = static_cast<uint64_t>(fraction * static_cast<double>(count_));
  uint64_t seen = 0;
  for (unsigned i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (buckets_[i] != 0 && seen >= wanted)
      return std::min(max_, std::chrono::nanoseconds(static_cast<int64_t>(end_of(i))));
  }
  return max_;
}

}  // namespace us::replay
