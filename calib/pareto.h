// The generalised Pareto distribution over whole numbers: what excesses over a high threshold look
// like, whatever they come from (Balkema and de Haan 1974, Pickands 1975). Shape 0 is the
// exponential, above it tails are heavy, below it they end.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "calib/histogram.h"

namespace us::calib {

constexpr double kShapeMin = -1;  // below it the likelihood has no maximum (Smith 1985)
constexpr double kShapeMax = 2;

struct Pareto {
  double scale = 1;  // branches
  double shape = 0;
  // log P(excess >= t), for a real t >= 0. Minus infinity past the end of a tail that ends.
  double log_survival(double t) const;
};

// Samples from a threshold on, as excesses over it, in intervals [begin, end).
class Excesses {
 public:
  Excesses(const Histogram& samples, uint64_t threshold);

  uint64_t threshold() const { return threshold_; }
  uint64_t count() const { return count_; }
  size_t distinct() const { return distinct_; }
  uint64_t largest() const { return largest_; }
  double mean() const { return mean_; }

  double log_likelihood(const Pareto& pareto) const;
  // The chance that a sample of `fitted` lies as far from it as this one: chi-squared with at
  // least 8 expected a cell. Nothing: too few cells to say.
  std::optional<double> goodness(const Pareto& fitted) const;

 private:
  struct Cell {
    double begin, end;
    double count;
  };
  uint64_t threshold_;
  uint64_t count_ = 0;
  uint64_t largest_ = 0;
  size_t distinct_ = 0;
  double mean_ = 0;
  std::vector<Cell> cells_;
};

struct ParetoFit {
  Pareto pareto;
  double log_likelihood = 0;
};
// Greatest likelihood.
ParetoFit fit(const Excesses& excesses);
// The same, of those whose survival at excess `t` is exp(log_survival).
ParetoFit fit_through(const Excesses& excesses, double t, double log_survival);

}  // namespace us::calib
