// What landings cost: the engine's own Lander brings a machine on the software processor, its
// counter modelled, to points where another machine of the same guest stands.
#pragma once

#include <cstdint>

#include "calib/measurements.h"
#include "pmu/profile.h"

namespace us::calib {

struct LandingBench {
  pmu::ModelSettings model;
  uint64_t minimum_period = 1;
  // Targets lie so many branches ahead of where the machine stands, at least; above every margin
  // to be tried, so that each tries the same landings.
  uint64_t distance_min = 1000;
};

// `landings` landings with `margin`; where they go depends on `seed`, not on the margin.
LandingTally measure_landings(const LandingBench& bench, uint64_t margin, uint64_t landings,
                              uint64_t seed);

// Nanoseconds that one single step of the software processor takes here and now.
double measure_soft_step_ns(uint64_t steps);

}  // namespace us::calib
