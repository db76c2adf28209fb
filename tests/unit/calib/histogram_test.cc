#include "calib/histogram.h"

#include <doctest/doctest.h>

#include "calib/statistics.h"
#include "pmu/random.h"

namespace us::calib {
namespace {

Histogram of(std::initializer_list<uint64_t> values) {
  Histogram out;
  for (const uint64_t value : values) out.add(value);
  return out;
}

}  // namespace

TEST_CASE("ranks, counts and means of a histogram are those of its sorted values") {
  const Histogram h = of({5, 1, 5, 9, 2});
  CHECK(h.samples() == 5);
  CHECK(h.at_rank(0) == 1);
  CHECK(h.at_rank(2) == 5);
  CHECK(h.at_rank(4) == 9);
  CHECK(h.count_from(5) == 3);
  CHECK(h.count_of(5) == 2);
  CHECK(h.mean() == doctest::Approx(4.4));
  CHECK(h.mean_below(5) == doctest::Approx((4 + 3) / 5.0));
}

TEST_CASE("a quantile's interval holds the truth as often as it says, of lumpy values too") {
  constexpr double kConfidence = 0.9;
  constexpr int kRuns = 400;
  int held = 0;
  for (int run = 0; run < kRuns; ++run) {
    pmu::Random random(static_cast<uint64_t>(run) + 1);
    Histogram h;
    for (int i = 0; i < 500; ++i) h.add(random.below(1000));
    held += quantile(h, 0.9, kConfidence).holds(899);
  }
  // 360 are expected; far fewer would be a wrong interval, all of them a useless one.
  CHECK(held >= 340);
  CHECK(held < 400);
}

TEST_CASE("of equal samples every quantile is that value, with no doubt about it") {
  Histogram h;
  h.add(100, 1000);
  CHECK(quantile(h, 0.5, 0.99) == Interval{100, 100, 100});
  CHECK(quantile(h, 0.99, 0.99) == Interval{100, 100, 100});
}

TEST_CASE("probabilities of counts are those of the textbook") {
  CHECK(binomial_tail(10, 0.5, 10) == doctest::Approx(1 / 1024.0));
  CHECK(binomial_tail(10, 0.5, 0) == 1);
  CHECK(binomial_tail(3, 0.5, 4) == 0);
  CHECK(probability_bound(0, 300, 0.95) == doctest::Approx(0.00994).epsilon(0.01));
  CHECK(chi_squared_limit(0.95, 1) == doctest::Approx(3.8415).epsilon(0.001));
  CHECK(poisson_limit(0, 1e-4) == 0);
  CHECK(poisson_limit(10, 1e-4) == 24);
}

}  // namespace us::calib
