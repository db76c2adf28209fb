#include "tests/simulation/simulation.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

namespace us::sim {
namespace {

uint64_t seeds_until_found(Planted planted, uint64_t most) {
  for (uint64_t seed = 1; seed <= most; ++seed)
    if (!simulate(seed, planted).violation.empty()) return seed;
  return 0;
}

TEST_CASE("a pair under crashes, partitions, slowness and a failing arbiter breaks no rule") {
  constexpr uint64_t kSeeds = 1000;
  uint64_t failovers = 0, fenced = 0, sessions = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome outcome = simulate(seed, Planted::kNothing);
    INFO("seed " << seed << "; alone: tests/simulation/simulation --seeds 1 --first " << seed);
    REQUIRE(outcome.violation == "");
    failovers += outcome.failovers;
    fenced += outcome.fenced;
    sessions += outcome.sessions;
  }
  MESSAGE(failovers << " failovers, " << fenced << " sides fenced, " << sessions << " sessions");
  // A simulation in which nothing happens finds nothing.
  CHECK(failovers > kSeeds / 10);
  CHECK(fenced > 0);
  CHECK(sessions > kSeeds);
}

TEST_CASE("the same seed gives the same run") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Outcome a = simulate(seed, Planted::kNothing), b = simulate(seed, Planted::kNothing);
    CHECK(a.outputs == b.outputs);
    CHECK(a.records == b.records);
    CHECK(a.failovers == b.failovers);
  }
}

TEST_CASE("a secondary that acknowledges before it keeps is found within 1,000 seeds") {
  const uint64_t seed = seeds_until_found(Planted::kAckBeforeKeep, 1000);
  CHECK(seed != 0);
  MESSAGE("found with seed " << seed);
}

TEST_CASE("a primary that releases before the ack is found within 1,000 seeds") {
  const uint64_t seed = seeds_until_found(Planted::kReleaseBeforeAck, 1000);
  CHECK(seed != 0);
  MESSAGE("found with seed " << seed);
}

TEST_CASE("a secondary that goes live without the arbiter is found within 1,000 seeds") {
  const uint64_t seed = seeds_until_found(Planted::kGoLiveWithoutArbiter, 1000);
  CHECK(seed != 0);
  MESSAGE("found with seed " << seed);
}

}  // namespace
}  // namespace us::sim
