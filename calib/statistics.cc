#include "calib/statistics.h"

#include <algorithm>
#include <boost/math/distributions/beta.hpp>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/distributions/poisson.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include "base/check.h"

namespace us::calib {
namespace {

namespace math = boost::math;
using Outwards = math::policies::policy<
    math::policies::discrete_quantile<math::policies::integer_round_outwards>>;

}  // namespace

Interval quantile(const Histogram& samples, double q, double confidence) {
  US_CHECK(!samples.empty() && q > 0 && q < 1, "quantile {} of {} samples", q, samples.samples());
  const uint64_t n = samples.samples();
  const math::binomial_distribution<double, Outwards> below(static_cast<double>(n), q);
  const double each_side = (1 - confidence) / 2;
  const auto low = static_cast<uint64_t>(math::quantile(below, each_side));
  const auto high = static_cast<uint64_t>(math::quantile(math::complement(below, each_side)));
  const auto middle =
      static_cast<uint64_t>(std::ceil(q * static_cast<double>(n)));  // from 1: its rank
  // Ranks here begin with 0: X(low) of the textbook, which begins with 1, is rank low - 1.
  return {.estimate = samples.at_rank(std::clamp<uint64_t>(middle, 1, n) - 1),
          .low = low == 0 ? 0 : samples.at_rank(std::min(low, n) - 1),
          .high = samples.at_rank(std::min(high, n - 1))};
}

double chi_squared_tail(double value, double freedom) {
  return math::cdf(math::complement(math::chi_squared(freedom), std::max(value, 0.0)));
}

double chi_squared_limit(double confidence, double freedom) {
  return math::quantile(math::chi_squared(freedom), confidence);
}

double student_limit(double confidence, double freedom) {
  return math::quantile(math::students_t(freedom), (1 + confidence) / 2);
}

double binomial_tail(uint64_t trials, double p, uint64_t successes) {
  if (successes == 0) return 1;
  if (successes > trials) return 0;
  const math::binomial sum(static_cast<double>(trials), p);
  return math::cdf(math::complement(sum, static_cast<double>(successes - 1)));
}

uint64_t poisson_limit(double mean, double chance) {
  if (mean <= 0) return 0;
  const math::poisson count(mean);
  uint64_t k = static_cast<uint64_t>(mean);
  while (math::cdf(math::complement(count, static_cast<double>(k))) > chance) ++k;
  return k;
}

double probability_bound(uint64_t successes, uint64_t trials, double confidence) {
  if (successes >= trials) return 1;
  const math::beta_distribution<double> beta(static_cast<double>(successes + 1),
                                             static_cast<double>(trials - successes));
  return math::quantile(beta, confidence);
}

}  // namespace us::calib
