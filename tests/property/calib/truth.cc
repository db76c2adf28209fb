// Estimates against the model's truth: p50, p99 and the tail within what is stated, and the margin
// chosen overshoots no more often than wanted, over alarms drawn anew.
#include <algorithm>
#include <cstdio>

#include "tests/property/calib/soak.h"

namespace us::calib::soak {
namespace {

constexpr const char* kSkids[] = {"fixed:100",       "uniform:0:200",   "geometric:20:400",
                                  "skylake",         "sapphire-rapids", "heavy-tail:30:20000",
                                  "bimodal:5:300:10"};

struct Totals {
  uint64_t right = 0;  // runs whose three intervals all hold the truth
  uint64_t safe = 0;   // runs whose margin overshoots no more often than wanted, by the truth
  uint64_t overshoots = 0, landings = 0, worst = 0;  // drawn
  double margins = 0;                                // over the least that is safe
};

// Alarms of the model itself against the margin.
uint64_t overshoots(const pmu::SkidModel& skid, uint64_t margin, uint64_t landings, uint64_t seed) {
  pmu::PmuModel counter({.skid = skid, .seed = seed}, [] { return pmu::Retired{}; });
  uint64_t count = 0;
  for (uint64_t i = 0; i < landings; ++i) {
    const bool armed = counter.arm(Branches(0), Branches(1000)).ok();
    US_CHECK(armed && counter.interrupt_at());
    count += *counter.interrupt_at() - 1000 >= margin;
  }
  return count;
}

void one_run(const pmu::SkidModel& skid, uint64_t seed, const Sizes& sizes, bool lands,
             Totals& totals) {
  SoftHost host({.skid = skid});
  const Wanted wanted;
  const auto found = analyse(measure_skid(host, sizes.samples, seed), wanted);
  US_CHECK(found.has_value());
  const uint64_t reach = true_reach(skid, wanted.overshoot_probability);
  const bool right = found->p50.holds(true_quantile(skid, 0.50)) &&
                     found->p99.holds(true_quantile(skid, 0.99)) &&
                     found->choice.reach.holds(reach);
  totals.right += right;
  if (!right)
    std::printf("  seed %lu: p50 %lu to %lu, p99 %lu to %lu, tail %lu to %lu (truth %lu)\n", seed,
                found->p50.low, found->p50.high, found->p99.low, found->p99.high,
                found->choice.reach.low, found->choice.reach.high, reach);
  totals.safe += skid.chance_from(found->choice.margin) <= wanted.overshoot_probability;
  totals.margins += static_cast<double>(found->choice.margin) / static_cast<double>(reach);
  if (!lands) return;
  const uint64_t over = overshoots(skid, found->choice.margin, sizes.landings, seed ^ 0x10000);
  totals.overshoots += over;
  totals.landings += sizes.landings;
  totals.worst = std::max(totals.worst, over);
}

}  // namespace

int truth(const Sizes& sizes) {
  int wrong = 0;
  const Wanted wanted;
  for (const char* text : kSkids) {
    const pmu::SkidModel skid = skid_named(text);
    Totals totals;
    // Drawing takes longer than measuring: the first runs of each model do it.
    for (uint64_t run = 0; run < sizes.runs; ++run)
      one_run(skid, sizes.seed + run, sizes, run < 3, totals);
    const double n = static_cast<double>(sizes.runs);
    // As many overshoots as wanted, give or take what chance makes of so many landings.
    const uint64_t most =
        poisson_limit(wanted.overshoot_probability * static_cast<double>(sizes.landings), 1e-4);
    const bool held = static_cast<double>(totals.right) >= 0.95 * n &&
                      static_cast<double>(totals.safe) >= 0.95 * n && totals.worst <= most;
    wrong += !held;
    std::printf(
        "%-20s truth of p50, p99, tail %lu, %lu, %lu: within the intervals in %lu of %lu runs; "
        "margin "
        "safe in %lu, %.3f times the least; %lu overshoots in %lu landings%s\n",
        text, true_quantile(skid, 0.50), true_quantile(skid, 0.99),
        true_reach(skid, wanted.overshoot_probability), totals.right, sizes.runs, totals.safe,
        totals.margins / n, totals.overshoots, totals.landings, held ? "" : "  WRONG");
    std::fflush(stdout);
  }
  return wrong;
}

}  // namespace us::calib::soak
