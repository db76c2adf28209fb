#include "calib/margin.h"

#include <algorithm>

#include "pmu/profile.h"

namespace us::calib {

UnitCosts unit_costs_of(const CostFigures& measured) {
  UnitCosts costs;
  if (measured.arm_ns && measured.alarm_ns) costs.alarm_ns = *measured.arm_ns + *measured.alarm_ns;
  if (measured.break_ns) costs.stop_ns = *measured.break_ns;
  return costs;
}

std::optional<StopRate> stop_rate(const std::map<uint64_t, LandingTally>& landings,
                                  const Histogram& skid) {
  double n = 0, sum_x = 0, sum_y = 0, sum_xx = 0, sum_xy = 0;
  for (const auto& [margin, tally] : landings) {
    // A landing that overshot has walked nothing: it says nothing of walking.
    if (tally.landings == 0 || tally.overshoots != 0) continue;
    const double x = skid.mean_below(margin);
    const double y = static_cast<double>(tally.stops) / static_cast<double>(tally.landings);
    n += 1;
    sum_x += x;
    sum_y += y;
    sum_xx += x * x;
    sum_xy += x * y;
  }
  const double spread = n * sum_xx - sum_x * sum_x;
  if (n < 2 || spread <= 0) return std::nullopt;
  const double slope = std::max((n * sum_xy - sum_x * sum_y) / spread, 0.0);
  return StopRate{.fixed = std::max((sum_y - slope * sum_x) / n, 0.0), .per_branch = slope};
}

double expected_cost_ns(uint64_t margin, const Histogram& skid, const TailFit& tail,
                        const UnitCosts& costs, const StopRate& rate) {
  const double stops = rate.fixed + rate.per_branch * skid.mean_below(margin);
  const double overshoots = tail.exceedance(skid, static_cast<double>(margin));
  return costs.alarm_ns + costs.stop_ns * stops + costs.overshoot_ns * overshoots;
}

double measured_cost_ns(const LandingTally& t, const UnitCosts& costs) {
  if (t.landings == 0) return 0;
  return (costs.alarm_ns * static_cast<double>(t.alarms) +
          costs.stop_ns * static_cast<double>(t.stops) +
          costs.overshoot_ns * static_cast<double>(t.overshoots)) /
         static_cast<double>(t.landings);
}

MarginChoice choose_margin(const Histogram& skid, const Tail& tail, double overshoot_probability,
                           double confidence, const UnitCosts& costs, const StopRate& rate) {
  MarginChoice choice{.reach = tail.reach(overshoot_probability, confidence),
                      .overshoot_probability = overshoot_probability};
  choice.bounded = choice.reach.high <= pmu::kMarginMax;
  const uint64_t least = std::min(choice.reach.high, pmu::kMarginMax);
  const uint64_t most = std::min(2 * least + 16, pmu::kMarginMax);
  // A coarse look, then each margin around the best: the cost falls, if at all, and then rises.
  const auto cost = [&](uint64_t margin) {
    return expected_cost_ns(margin, skid, tail.fit(), costs, rate);
  };
  const uint64_t stride = std::max<uint64_t>((most - least) / 64, 1);
  uint64_t best = least;
  for (uint64_t m = least; m <= most; m += stride)
    if (cost(m) < cost(best)) best = m;
  const uint64_t from = std::max(least, best - std::min(best, stride)), to = best + stride;
  const uint64_t fine = std::max<uint64_t>((to - from) / 64, 1);
  for (uint64_t m = from; m <= std::min(to, most); m += fine)
    if (cost(m) < cost(best)) best = m;
  choice.margin = best;
  choice.expected_cost_ns = cost(best);
  return choice;
}

}  // namespace us::calib
