// Whole numbers counted by value: skids, in branches.
#pragma once

#include <cstdint>
#include <map>

namespace us::calib {

class Histogram {
 public:
  void add(uint64_t value, uint64_t times = 1);
  void add(const Histogram& other);

  uint64_t samples() const { return samples_; }
  bool empty() const { return samples_ == 0; }
  uint64_t min() const { return empty() ? 0 : counts_.begin()->first; }
  uint64_t max() const { return empty() ? 0 : counts_.rbegin()->first; }
  double mean() const;
  // The value at `rank` (0: the least) in order of size; rank < samples().
  uint64_t at_rank(uint64_t rank) const;
  uint64_t count_of(uint64_t value) const;
  // Samples of `value` or more.
  uint64_t count_from(uint64_t value) const;
  // Mean over all samples of how far they stay below `limit`; those at or above it count as 0.
  double mean_below(uint64_t limit) const;

  // Value -> times, in order of value.
  const std::map<uint64_t, uint64_t>& counts() const { return counts_; }
  bool operator==(const Histogram&) const = default;

 private:
  std::map<uint64_t, uint64_t> counts_;
  uint64_t samples_ = 0;
};

}  // namespace us::calib
