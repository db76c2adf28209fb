// The engine itself lands with the calibrated margin: its Lander on the software processor, a
// modelled counter's alarms, breakpoints and steps. Overshoots are as few as the margin was chosen
// for.
#include <algorithm>
#include <cstdio>

#include "tests/property/calib/soak.h"

namespace us::calib::soak {
namespace {

// Least reach first: landings with a long one take long.
constexpr const char* kSkids[] = {"fixed:100",         "uniform:0:200",    "skylake",
                                  "sapphire-rapids",   "geometric:20:400", "bimodal:5:300:10",
                                  "heavy-tail:30:5000"};
constexpr uint64_t kTurn = 1000;  // landings of two machines, before new ones

LandingTally land(const pmu::SkidModel& skid, uint64_t margin, const Sizes& sizes) {
  LandingTally all;
  for (uint64_t turn = 0; all.landings < sizes.landings; ++turn) {
    const uint64_t now = std::min(kTurn, sizes.landings - all.landings);
    all.add(measure_landings({.model = {.skid = skid}, .distance_min = margin + 200}, margin, now,
                             sizes.seed * 1'000'003 + turn));
  }
  return all;
}

int one(const char* text, const Sizes& sizes) {
  const pmu::SkidModel skid = skid_named(text);
  SoftHost host({.skid = skid});
  const Wanted wanted;
  const auto found = analyse(measure_skid(host, sizes.samples, sizes.seed), wanted);
  US_CHECK(found.has_value());
  const uint64_t margin = found->choice.margin;
  const LandingTally tally = land(skid, margin, sizes);
  const uint64_t most =
      poisson_limit(wanted.overshoot_probability * static_cast<double>(tally.landings), 1e-4);
  const bool held = tally.overshoots <= most && tally.landings >= sizes.landings;
  std::printf("%-20s margin %lu: %lu overshoots in %lu landings, %.1f stops each%s\n", text, margin,
              tally.overshoots, tally.landings,
              static_cast<double>(tally.stops) / static_cast<double>(tally.landings),
              held ? "" : "  WRONG");
  std::fflush(stdout);
  return !held;
}

}  // namespace

int landing(const Sizes& sizes) {
  int wrong = 0;
  for (const char* text : kSkids) wrong += one(text, sizes);
  return wrong;
}

}  // namespace us::calib::soak
