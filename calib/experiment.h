// The experiments: what each supposes, how much of it there is to do, and the doing, in chunks that
// are small enough to stop between. A chunk's chance depends on the campaign's seed and its number
// alone, so a campaign that was interrupted ends with the very figures it would have ended with.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "calib/landing_cost.h"
#include "calib/measurements.h"

namespace us::calib {

enum class Effort : uint8_t { kQuick, kNormal, kThorough };

// Sizes, in what an experiment does one of.
struct Amounts {
  uint64_t skid_samples = 0;    // alarms, over all shapes
  uint64_t pieces = 0;          // of code counted, for each shape and disturbance
  uint64_t piece_branches = 0;  // in one
  uint64_t alarms = 0;          // far apart, and as many in a storm
  uint64_t period_samples = 0;  // for each short period
  uint64_t landings = 0;        // for each margin
};
// Perf's alarms take microseconds, the model's take none: its amounts are smaller. A guest's take
// an exit each; where it is stepped, every branch does.
Amounts amounts_of(Effort effort, std::string_view backend);

// What experiments work on.
struct Bench {
  ExperimentHost& host;
  Amounts amounts;
  // The machine to land on, where there is one to be had.
  std::optional<pmu::ModelSettings> machine;
  double overshoot_probability = 1e-6;
  double confidence = 0.99;
};

struct Experiment {
  std::string_view name;
  std::string_view hypothesis;
  uint64_t (*chunks)(const Bench& bench);
  // The `chunk`th of them; adds to `measured`. Errors: those of the host.
  Status (*run)(Bench& bench, uint64_t chunk, uint64_t seed, Measurements& measured);
};

extern const Experiment kCostExperiment;  // costs.cc
extern const Experiment kExactness;       // exactness.cc
extern const Experiment kSparseAlarms;    // alarms.cc
extern const Experiment kAlarmStorm;      // alarms.cc
extern const Experiment kShortPeriods;    // periods.cc
extern const Experiment kSkid;            // skid.cc
extern const Experiment kLandingCost;     // landing_experiment.cc

// In the order they are done: some use what those before them found.
std::vector<const Experiment*> experiments();

// What skid is measured amid: each shape in quiet, and one of them in each disturbance to be had.
struct SkidCondition {
  Shape shape;
  Disturbance disturbance;
};
std::vector<SkidCondition> skid_conditions(const ExperimentHost& host);
std::string name_of(const SkidCondition& condition);  // "mixed", "mixed+busy-sibling"

// Periods that are tried, in branches. 1 shows what short ones are raised to, the last is too long
// to be raised by any part.
inline constexpr uint64_t kPeriodsTried[] = {1, 16, 31, 32, 127, 128, 1000};

// How long an alarm is waited for, in branches past its time, before it counts as lost; and the
// pause between alarms that are to be free of throttling, given what the storm showed.
constexpr uint64_t kPatience = 4'000'000;
uint64_t pause_between(const Measurements& measured);

}  // namespace us::calib
