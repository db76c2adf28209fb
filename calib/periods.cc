#include "calib/experiment.h"

namespace us::calib {
namespace {

uint64_t chunks(const Bench&) { return std::size(kPeriodsTried); }

Status run(Bench& bench, uint64_t chunk, uint64_t, Measurements& measured) {
  const uint64_t period = kPeriodsTried[chunk];
  const uint64_t pause = pause_between(measured);
  AlarmTally& tally = measured.periods[period];
  for (uint64_t i = 0; i < bench.amounts.period_samples; ++i) {
    if (pause != 0) bench.host.pause(pause);
    const auto alarm = bench.host.alarm(Shape::kTaken, period, kPatience);
    if (!alarm.ok()) return alarm.error();
    tally.add(period, *alarm);
  }
  return Done{};
}

}  // namespace

const Experiment kShortPeriods{
    "short periods", "an alarm is as late with a period of 1 as with one of 1000", chunks, run};

}  // namespace us::calib
