// Which margin landing should use: one that is safe, and of those the one that costs least.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "calib/histogram.h"
#include "calib/measurements.h"
#include "calib/tail.h"

namespace us::calib {

// Nanoseconds. Where a host has not been measured these stand in: a signal through KVM and back, a
// breakpoint through KVM and back (both assumed), and a pair that has to transfer its state anew.
struct UnitCosts {
  double alarm_ns = 6000;
  double stop_ns = 2000;
  double overshoot_ns = 1e9;
};
UnitCosts unit_costs_of(const CostFigures& measured);

// How many precise stops a landing makes: `fixed`, and `per_branch` for each that it walks.
struct StopRate {
  double fixed = 2;
  double per_branch = 1;  // assumed where no landings were made: every branch is at the target's
                          // address, half of them with a step off it
};
// Least squares over landings with several margins; nothing: there are not enough.
std::optional<StopRate> stop_rate(const std::map<uint64_t, LandingTally>& landings,
                                  const Histogram& skid);

// What one landing with `margin` is expected to cost, and what landings did cost.
double expected_cost_ns(uint64_t margin, const Histogram& skid, const TailFit& tail,
                        const UnitCosts& costs, const StopRate& rate);
double measured_cost_ns(const LandingTally& landings, const UnitCosts& costs);

struct MarginChoice {
  uint64_t margin = 0;
  Interval reach;                    // the least margin that overshoots no more often than wanted
  double overshoot_probability = 0;  // wanted
  bool bounded = true;               // false: no margin up to pmu::kMarginMax is known to be enough
  double expected_cost_ns = 0;
};
// The cheapest of the margins from `reach.high` on.
MarginChoice choose_margin(const Histogram& skid, const Tail& tail, double overshoot_probability,
                           double confidence, const UnitCosts& costs, const StopRate& rate);

}  // namespace us::calib
