// The TSC's rate and drift, from samples whose truth is made up.
#include "calib/tsc.h"

#include <cmath>
#include <doctest/doctest.h>

#include "pmu/random.h"

namespace us::calib {
namespace {

constexpr double kHz = 2.5e9;
constexpr double kConfidence = 0.99;

// A counter of kHz whose rate grows by `drift` ppm an hour and whose readings are off by up to
// `noise` ticks, read `samples` times, `gap_s` apart.
TscStretch stretch_of(double drift, uint64_t noise, size_t samples, double gap_s, uint64_t seed,
                      double begin_s = 100) {
  pmu::Random random(seed);
  TscStretch out;
  for (size_t i = 0; i < samples; ++i) {
    const double at = begin_s + static_cast<double>(i) * gap_s;
    const double ticks = kHz * at + kHz * drift * 1e-6 / 3600 * at * at / 2;
    out.push_back({.tsc = static_cast<uint64_t>(ticks) + (noise == 0 ? 0 : random.below(noise)),
                   .clock_ns = static_cast<uint64_t>(at * 1e9)});
  }
  return out;
}

}  // namespace

TEST_CASE("a counter without drift or noise has its rate to a millionth part, and no drift") {
  const auto rate = tsc_rate({stretch_of(0, 0, 100, 0.5, 1)}, kConfidence);
  REQUIRE(rate.has_value());
  CHECK(std::abs(rate->hz / kHz - 1) < 1e-6);
  CHECK(std::abs(rate->drift) < 0.01);
  CHECK(rate->samples == 100);
  CHECK(rate->seconds == doctest::Approx(49.5));
}

TEST_CASE("rate and drift lie within their intervals in at least 96 of 100 noisy campaigns") {
  for (const double drift : {0.0, 400.0, -400.0}) {
    int right = 0, seen = 0;
    for (uint64_t seed = 1; seed <= 100; ++seed) {
      const auto rate = tsc_rate({stretch_of(drift, 2000, 200, 0.2, seed)}, kConfidence);
      REQUIRE(rate.has_value());
      const double mean_hz = kHz + kHz * drift * 1e-6 / 3600 * (100 + 199 * 0.2 / 2);
      right += rate->hz_low <= mean_hz && mean_hz <= rate->hz_high && rate->drift_low <= drift &&
               drift <= rate->drift_high;
      // A drift this large is told from none.
      seen += rate->drift_low > 0 || rate->drift_high < 0;
    }
    CHECK(right >= 96);
    CHECK((drift == 0 ? seen <= 4 : seen >= 90));
  }
}

TEST_CASE("stretches of several processes are put together, one that ran backwards is left out") {
  TscStretch first = stretch_of(0, 0, 50, 0.5, 1), second = stretch_of(0, 0, 50, 0.5, 2, 500);
  const auto rate = tsc_rate({first, second}, kConfidence);
  REQUIRE(rate.has_value());
  CHECK(rate->samples == 100);
  CHECK(std::abs(rate->hz / kHz - 1) < 1e-6);
  std::swap(second[3], second[4]);
  CHECK(tsc_rate({first, second}, kConfidence)->samples == 50);
}

TEST_CASE("too few samples, or none, say nothing") {
  CHECK_FALSE(tsc_rate({}, kConfidence).has_value());
  CHECK_FALSE(tsc_rate({{}}, kConfidence).has_value());
  CHECK_FALSE(tsc_rate({stretch_of(0, 0, 1, 1, 1)}, kConfidence).has_value());
  CHECK_FALSE(tsc_rate({stretch_of(0, 0, 3, 1, 1)}, kConfidence).has_value());
  CHECK(tsc_rate({stretch_of(0, 0, 9, 1, 1)}, kConfidence).has_value());
}

TEST_CASE("this host's counter and clock run, and forwards") {
  const TscSample before = read_tsc();
  TscSample after = read_tsc();
  while (after.clock_ns == before.clock_ns) after = read_tsc();
  CHECK(after.clock_ns > before.clock_ns);
  CHECK(after.tsc > before.tsc);
}

}  // namespace us::calib
