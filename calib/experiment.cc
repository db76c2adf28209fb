#include "calib/experiment.h"

namespace us::calib {

std::vector<const Experiment*> experiments() {
  return {&kCostExperiment, &kExactness, &kSparseAlarms, &kAlarmStorm,
          &kShortPeriods,   &kSkid,      &kLandingCost};
}

namespace {

Amounts times(const Amounts& a, uint64_t n) {
  return {.skid_samples = a.skid_samples * n,
          .pieces = a.pieces * n,
          .piece_branches = a.piece_branches,
          .alarms = a.alarms * n,
          .period_samples = a.period_samples * n,
          .landings = a.landings * n};
}

// A factor of quick amounts.
uint64_t factor_of(Effort effort) {
  switch (effort) {
    case Effort::kQuick: return 1;
    case Effort::kNormal: return 5;
    case Effort::kThorough: break;
  }
  return 50;
}

constexpr Amounts kQuickGuest{.skid_samples = 200'000,
                              .pieces = 500,
                              .piece_branches = 20'000,
                              .alarms = 300,
                              .period_samples = 500};
// That no alarm of hundreds was late tells a stop at the very branch from a tail without an end.
constexpr Amounts kQuickSteps{
    .skid_samples = 960, .pieces = 10, .piece_branches = 400, .alarms = 10, .period_samples = 50};

}  // namespace

Amounts amounts_of(Effort effort, std::string_view backend) {
  if (backend == "kvm") return times(kQuickGuest, factor_of(effort));
  if (backend == "kvm-steps") return times(kQuickSteps, factor_of(effort));
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
