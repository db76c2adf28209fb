// Landing with the calibrated margin costs at most 5 % more than with the best one there is. The
// best is found by trying: the engine's own landings on the software processor, with every margin
// of a grid, at the fixed costs of UnitCosts, so that the clock has no say. A margin that
// overshoots more often than wanted, by the model's truth, is none.
#include <algorithm>
#include <cstdio>

#include "tests/property/calib/soak.h"

namespace us::calib::soak {
namespace {

constexpr const char* kSkids[] = {"fixed:100", "uniform:0:200",      "geometric:20:400",
                                  "skylake",   "heavy-tail:30:5000", "bimodal:5:300:10"};
constexpr double kAllowed = 1.05;

double landing_cost(const pmu::SkidModel& skid, uint64_t margin, uint64_t landings,
                    uint64_t distance, LandingTally& tally) {
  tally =
      measure_landings({.model = {.skid = skid}, .distance_min = distance}, margin, landings, 7);
  return measured_cost_ns(tally, UnitCosts{});
}

// Margins from the least safe one on, close together at first; and some below, that must not win.
std::vector<uint64_t> grid(uint64_t reach) {
  std::vector<uint64_t> out;
  for (const double part :
       {0.5, 0.8, 0.95, 1.0, 1.01, 1.03, 1.06, 1.1, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0})
    out.push_back(std::max<uint64_t>(static_cast<uint64_t>(part * static_cast<double>(reach)), 1));
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

int one(const char* text, uint64_t seed, const Sizes& sizes) {
  const pmu::SkidModel skid = skid_named(text);
  SoftHost host({.skid = skid});
  const auto found = analyse(measure_skid(host, sizes.samples, seed), {});
  US_CHECK(found.has_value());
  const uint64_t reach = true_reach(skid, Wanted{}.overshoot_probability);
  const uint64_t distance = 3 * std::max(reach, found->choice.margin) + 500;
  uint64_t best_margin = 0;
  double best = 0;
  LandingTally tally;
  for (const uint64_t margin : grid(reach)) {
    if (skid.chance_from(margin) > Wanted{}.overshoot_probability) continue;
    const double cost = landing_cost(skid, margin, sizes.landings, distance, tally);
    if (best_margin != 0 && cost >= best) continue;
    best_margin = margin;
    best = cost;
  }
  const double cost = landing_cost(skid, found->choice.margin, sizes.landings, distance, tally);
  const bool safe = skid.chance_from(found->choice.margin) <= Wanted{}.overshoot_probability;
  const bool held = safe && cost <= kAllowed * best && tally.overshoots == 0;
  std::printf(
      "%-20s seed %lu: margin %lu costs %.1f us a landing (%.1f stops), best is %lu with %.1f us: "
      "ratio %.4f%s\n",
      text, seed, found->choice.margin, cost / 1000,
      static_cast<double>(tally.stops) / static_cast<double>(tally.landings), best_margin,
      best / 1000, cost / best, held ? "" : "  WRONG");
  std::fflush(stdout);
  return !held;
}

}  // namespace

int cost(const Sizes& sizes) {
  int wrong = 0;
  for (const char* text : kSkids)
    for (uint64_t run = 0; run < sizes.runs; ++run) wrong += one(text, sizes.seed + run, sizes);
  return wrong;
}

}  // namespace us::calib::soak
