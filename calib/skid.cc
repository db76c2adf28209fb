#include "calib/experiment.h"
#include "pmu/random.h"

namespace us::calib {
namespace {

constexpr uint64_t kChunksEach = 20;                        // a shape
constexpr uint64_t kPeriodMin = 200, kPeriodSpread = 1000;  // branches

uint64_t chunks(const Bench& bench) { return bench.host.shapes().size() * kChunksEach; }

Status run(Bench& bench, uint64_t chunk, uint64_t seed, Measurements& measured) {
  const auto shapes = bench.host.shapes();
  // Shapes take turns, so that what is kept of a campaign that was stopped has some of each.
  const Shape shape = shapes[chunk % shapes.size()];
  const uint64_t samples = bench.amounts.skid_samples / chunks(bench);
  const uint64_t pause = pause_between(measured);
  pmu::Random random(seed);
  AlarmTally tally;
  for (uint64_t i = 0; i < samples; ++i) {
    if (pause != 0) bench.host.pause(pause);
    const uint64_t period = kPeriodMin + random.below(kPeriodSpread);
    const auto alarm = bench.host.alarm(shape, period, kPatience);
    if (!alarm.ok()) return alarm.error();
    tally.add(period, *alarm);
  }
  measured.skid[std::string(name_of(shape))].add(tally);
  return Done{};
}

}  // namespace

const Experiment kSkid{"skid",
                       "how late an alarm comes is drawn from one distribution, whatever code runs "
                       "and whatever its period",
                       chunks, run};

}  // namespace us::calib
