// How long outputs waited: a histogram of durations in a fixed number of buckets, each at most 1/8
// wider than the one below it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace us::replay {

class HoldTimes {
 public:
  void add(std::chrono::nanoseconds d);
  uint64_t count() const { return count_; }
  std::chrono::nanoseconds max() const { return max_; }
  // The duration that `fraction` of all did not pass, rounded up to its bucket's end; zero when
  // empty.
  std::chrono::nanoseconds quantile(double fraction) const;

 private:
  static constexpr unsigned kSteps = 8;  // buckets a doubling
  static unsigned bucket_of(uint64_t ns);
  static uint64_t end_of(unsigned bucket);

  std::array<uint64_t, 64 * kSteps> buckets_{};
  uint64_t count_ = 0;
  std::chrono::nanoseconds max_{0};
};

}  // namespace us::replay
