// Statements about a distribution from samples of it, each with the confidence it holds at.
#pragma once

#include <cstdint>

#include "calib/histogram.h"

namespace us::calib {

// An estimate and where the truth lies: within [low, high] with the confidence asked for.
struct Interval {
  uint64_t estimate = 0, low = 0, high = 0;
  bool holds(uint64_t truth) const { return low <= truth && truth <= high; }
  bool operator==(const Interval&) const = default;
};

// The least x with P(X <= x) >= q. From order statistics alone: true of every distribution, ties
// and lumps included (David and Nagaraja, Order Statistics, 7.1). `high` is the largest sample
// where there are too few to say more.
Interval quantile(const Histogram& samples, double q, double confidence);

// P(chi-squared with `freedom` degrees > value).
double chi_squared_tail(double value, double freedom);
// The value that a chi-squared variable exceeds with probability 1 - confidence.
double chi_squared_limit(double confidence, double freedom);
// The value that the size of Student's t exceeds with probability 1 - confidence: half the width of
// an interval, in standard errors.
double student_limit(double confidence, double freedom);
// P(Binomial(trials, p) >= successes).
double binomial_tail(uint64_t trials, double p, uint64_t successes);
// The least k with P(Poisson(mean) > k) <= chance: more than that is more than chance explains.
uint64_t poisson_limit(double mean, double chance);
// Upper bound of a probability after `successes` in `trials` (Clopper and Pearson 1934).
double probability_bound(uint64_t successes, uint64_t trials, double confidence);

}  // namespace us::calib
