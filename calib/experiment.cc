#include "calib/experiment.h"

namespace us::calib {

std::vector<const Experiment*> experiments() {
  return {&kCostExperiment, &kExactness, &kSparseAlarms, &kAlarmStorm,
          &kShortPeriods,   &kSkid,      &kLandingCost};
}

Amounts amounts_of(Effort effort, std::string_view backend) {
  const bool soft = backend == "soft";
  switch (effort) {
    case Effort::kQuick:
      // The tail of a Skylake-like skid takes so many: with half of them, or a quarter, margins are
      // 1.2 and 1.5 times the least that is safe, with these they are that.
      return {.skid_samples = 200'000u,
              .pieces = 1000,
              .piece_branches = 100'000,
              .alarms = 1000,
              .period_samples = 1000,
              .landings = 50};
    case Effort::kNormal: break;
    case Effort::kThorough:
      return {.skid_samples = soft ? 10'000'000u : 5'000'000u,
              .pieces = 20'000,
              .piece_branches = 100'000,
              .alarms = 20'000,
              .period_samples = 20'000,
              .landings = 1000};
  }
  return {.skid_samples = soft ? 1'000'000u : 500'000u,
          .pieces = 4000,
          .piece_branches = 100'000,
          .alarms = 4000,
          .period_samples = 4000,
          .landings = 200};
}

}  // namespace us::calib
