// What the parts of calib_soak share.
#pragma once

#include <cstdint>
#include <string>

#include "calib/calibration.h"
#include "calib/soft_host.h"

namespace us::calib::soak {

struct Sizes {
  uint64_t runs = 0;      // seeds
  uint64_t samples = 0;   // alarms measured a run
  uint64_t landings = 0;  // drawn, or made, with the margin found
  uint64_t seed = 1;
};

// The least m with P(skid >= m) <= chance, and the least x with P(skid <= x) >= q: the truth.
uint64_t true_reach(const pmu::SkidModel& skid, double chance);
uint64_t true_quantile(const pmu::SkidModel& skid, double q);

pmu::SkidModel skid_named(const std::string& text);

// Skid measured from `host` with `samples` alarms, by the experiment itself.
Measurements measure_skid(SoftHost& host, uint64_t samples, uint64_t seed);
// The whole campaign but for landings.
Measurements measure_counter(const pmu::ModelSettings& model, const Amounts& amounts,
                             uint64_t seed);

// Each returns how much was wrong.
int truth(const Sizes& sizes);
int quirks(const Sizes& sizes);
int cost(const Sizes& sizes);
int landing(const Sizes& sizes);

}  // namespace us::calib::soak
