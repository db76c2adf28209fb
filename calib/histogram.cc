#include "calib/histogram.h"

#include "base/check.h"

namespace us::calib {

void Histogram::add(uint64_t value, uint64_t times) {
  if (times == 0) return;
  counts_[value] += times;
  samples_ += times;
}

void Histogram::add(const Histogram& other) {
  for (const auto& [value, times] : other.counts_) add(value, times);
}

double Histogram::mean() const {
  double sum = 0;
  for (const auto& [value, times] : counts_)
    sum += static_cast<double>(value) * static_cast<double>(times);
  return empty() ? 0 : sum / static_cast<double>(samples_);
}

uint64_t Histogram::at_rank(uint64_t rank) const {
  US_CHECK(rank < samples_, "rank {} of {} samples", rank, samples_);
  uint64_t seen = 0;
  for (const auto& [value, times] : counts_) {
    seen += times;
    if (rank < seen) return value;
  }
  return max();
}

uint64_t Histogram::count_of(uint64_t value) const {
  const auto found = counts_.find(value);
  return found == counts_.end() ? 0 : found->second;
}

uint64_t Histogram::count_from(uint64_t value) const {
  uint64_t count = 0;
  for (auto i = counts_.lower_bound(value); i != counts_.end(); ++i) count += i->second;
  return count;
}

double Histogram::mean_below(uint64_t limit) const {
  double sum = 0;
  for (auto i = counts_.begin(); i != counts_.end() && i->first < limit; ++i)
    sum += static_cast<double>(limit - i->first) * static_cast<double>(i->second);
  return empty() ? 0 : sum / static_cast<double>(samples_);
}

}  // namespace us::calib
