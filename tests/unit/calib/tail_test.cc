#include "calib/tail.h"

#include <cmath>
#include <doctest/doctest.h>

#include "calib/margin.h"
#include "pmu/profile.h"
#include "pmu/skid.h"

namespace us::calib {
namespace {

Histogram drawn(const char* text, size_t samples, uint64_t seed = 3) {
  const auto skid = pmu::parse_skid(text);
  REQUIRE(skid.ok());
  pmu::Random random(seed);
  Histogram out;
  for (size_t i = 0; i < samples; ++i) out.add(skid->draw(random));
  return out;
}

}  // namespace

TEST_CASE(
    "the Pareto distribution is exponential at shape 0 and ends where its shape is negative") {
  CHECK(Pareto{.scale = 10, .shape = 0}.log_survival(20) == doctest::Approx(-2));
  CHECK(Pareto{.scale = 10, .shape = 1e-10}.log_survival(20) == doctest::Approx(-2));
  CHECK(Pareto{.scale = 10, .shape = 1}.log_survival(10) == doctest::Approx(std::log(0.5)));
  CHECK(std::isinf(Pareto{.scale = 10, .shape = -1}.log_survival(10)));
}

TEST_CASE("the fit finds the shape that samples were drawn with") {
  struct Case {
    const char* skid;
    double shape;
  };
  for (const Case& c : {Case{"geometric:20:1000", 0}, Case{"heavy-tail:30:1000000", 1},
                        Case{"uniform:0:100000", -1}}) {
    INFO(c.skid);
    const Histogram samples = drawn(c.skid, 20'000);
    const ParetoFit fitted = fit(Excesses(samples, samples.min()));
    CHECK(fitted.pareto.shape == doctest::Approx(c.shape).epsilon(0.05).scale(1));
  }
}

TEST_CASE("a lump at the top is a ceiling; a smooth tail's largest value is none") {
  for (const char* text : {"none", "fixed:100", "bimodal:5:300:10", "heavy-tail:30:2000"}) {
    INFO(text);
    const Histogram samples = drawn(text, 50'000);
    const Tail tail(samples);
    CHECK(tail.fit().kind == TailKind::kCeiling);
    const uint64_t end = pmu::parse_skid(text)->max();
    CHECK(tail.reach(1e-6, 0.99) == Interval{end + 1, end + 1, end + 1});
  }
  for (const char* text : {"geometric:20:1000", "geometric:1:100", "heavy-tail:30:1000000"}) {
    INFO(text);
    const Histogram samples = drawn(text, 50'000);
    CHECK(Tail(samples).fit().kind == TailKind::kFitted);
  }
}

TEST_CASE("an interval of the reach grows narrower with samples, and holds the truth") {
  // P(skid >= m) = exp(-m / 20): a million times less than once from 277 on.
  uint64_t before = ~0ull;
  for (const size_t n : {2000u, 20'000u, 200'000u}) {
    const Histogram samples = drawn("geometric:20:1000", n);
    const Interval reach = Tail(samples).reach(1e-6, 0.99);
    CHECK(reach.holds(277));
    CHECK(reach.high - reach.low < before);
    before = reach.high - reach.low;
  }
}

TEST_CASE("few samples give a wide interval or none, never a narrow wrong one") {
  Histogram few;
  for (uint64_t i = 0; i < 20; ++i) few.add(i);
  const Interval reach = Tail(few).reach(1e-6, 0.99);
  CHECK(reach.high > pmu::kMarginMax);
  CHECK(Tail(Histogram()).reach(1e-6, 0.99).high > pmu::kMarginMax);
}

TEST_CASE("where enough samples lie beyond it a quantile needs no fit") {
  const Histogram samples = drawn("heavy-tail:30:1000000", 100'000);
  // P(skid >= m) = 15 / m.
  CHECK(Tail(samples).reach(0.01, 0.99).holds(1500));
}

TEST_CASE("the margin chosen is the least safe one where walking costs and overshoots are rare") {
  const Histogram samples = drawn("bimodal:5:300:10", 10'000);
  const Tail tail(samples);
  const MarginChoice choice = choose_margin(samples, tail, 1e-6, 0.99, UnitCosts{}, StopRate{});
  CHECK(choice.margin == 301);
  CHECK(choice.bounded);
  // Where stops cost nothing and overshoots nearly nothing, it need not be larger either.
  CHECK(choose_margin(samples, tail, 1e-6, 0.99, {.stop_ns = 0, .overshoot_ns = 0}, {}).margin ==
        301);
}

TEST_CASE("a margin above the safe one is chosen where overshoots cost more than walking does") {
  const Histogram samples = drawn("geometric:20:1000", 200'000);
  const Tail tail(samples);
  const MarginChoice cheap = choose_margin(samples, tail, 1e-2, 0.99, UnitCosts{}, StopRate{});
  CHECK(cheap.margin > cheap.reach.high);
}

TEST_CASE("a skid without an end has no margin that is known to be enough, and says so") {
  const Histogram samples = drawn("heavy-tail:4:1000000", 20'000);
  const Tail tail(samples);
  const MarginChoice choice = choose_margin(samples, tail, 1e-9, 0.99, UnitCosts{}, StopRate{});
  CHECK_FALSE(choice.bounded);
  CHECK(choice.margin <= pmu::kMarginMax);
}

}  // namespace us::calib
