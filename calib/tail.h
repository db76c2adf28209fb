// How far skid can reach, beyond what was seen: extreme-value theory by peaks over a threshold.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "calib/histogram.h"
#include "calib/pareto.h"
#include "calib/statistics.h"

namespace us::calib {

enum class TailKind : uint8_t {
  kCeiling,      // it ends at the largest value seen, which came too often to be a chance's end
  kFitted,       // a generalised Pareto tail from a threshold on
  kTooFewToFit,  // neither can be said: the samples alone speak
};
std::string_view name_of(TailKind kind);  // "ceiling", "pareto", "unknown"

struct TailFit {
  TailKind kind = TailKind::kTooFewToFit;
  uint64_t samples = 0;
  uint64_t largest = 0;  // seen, branches
  // kCeiling: how often the largest was seen, and the chance of that were it no end.
  uint64_t at_ceiling = 0;
  double ceiling_chance = 1;
  // kFitted: the threshold, the samples from it on, the distribution of their excesses and how
  // well it fits them (a p-value; below 0.05 it does not, and there is no better one).
  uint64_t threshold = 0;
  uint64_t excesses = 0;
  Pareto pareto{};
  double goodness = 1;

  // Estimate of P(skid >= x) for an x from the threshold on; of the samples below it.
  double exceedance(const Histogram& samples_of_it, double x) const;
};

class Tail {
 public:
  // The samples outlive it.
  explicit Tail(const Histogram& samples);

  const TailFit& fit() const { return fit_; }
  // The least m with P(skid >= m) <= chance: a margin of m branches overshoots no more often. Its
  // `high` is UINT64_MAX where the samples allow of no bound.
  Interval reach(double chance, double confidence) const;

 private:
  Interval from_fit(double chance, double confidence) const;
  const Histogram& samples_;
  TailFit fit_;
  std::optional<Excesses> excesses_;
  double log_likelihood_ = 0;
};

}  // namespace us::calib
