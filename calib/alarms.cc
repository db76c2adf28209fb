#include <algorithm>

#include "calib/experiment.h"

namespace us::calib {
namespace {

constexpr uint64_t kChunks = 10;
constexpr uint64_t kPeriod = 1000;         // branches; above every minimum
constexpr uint64_t kFarApart = 2'000'000;  // branches, some milliseconds
constexpr uint64_t kStormPeriod = 200;

uint64_t chunks(const Bench&) { return kChunks; }

Status alarms(Bench& bench, uint64_t period, uint64_t pause, AlarmTally& tally) {
  for (uint64_t i = 0; i < bench.amounts.alarms / kChunks; ++i) {
    if (pause != 0) bench.host.pause(pause);
    const auto run = bench.host.alarm(Shape::kMixed, period, kPatience);
    if (!run.ok()) return run.error();
    tally.add(period, *run);
  }
  return Done{};
}

Status sparse(Bench& bench, uint64_t, uint64_t, Measurements& measured) {
  return alarms(bench, kPeriod, kFarApart, measured.sparse);
}

Status storm(Bench& bench, uint64_t, uint64_t, Measurements& measured) {
  return alarms(bench, kStormPeriod, 0, measured.storm);
}

}  // namespace

uint64_t pause_between(const Measurements& measured) {
  const uint64_t usual = measured.sparse.late.max();
  const uint64_t in_storm = measured.storm.late.max();
  // A throttled alarm waits for the end of a window: pauses longer than any such wait put every
  // alarm into a window of its own.
  return in_storm > 2 * usual + kPeriod ? std::min(2 * in_storm, kFarApart) : 0;
}

const Experiment kSparseAlarms{"sparse alarms", "every overflow interrupts", chunks, sparse};
const Experiment kAlarmStorm{
    "alarm storm", "alarms come as soon after their time when many are set as when few are", chunks,
    storm};

}  // namespace us::calib
