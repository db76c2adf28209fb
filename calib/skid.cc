#include "calib/experiment.h"
#include "pmu/random.h"

namespace us::calib {
namespace {

constexpr uint64_t kChunksEach = 20;  // a condition
constexpr Disturbance kDisturbances[] = {Disturbance::kInterrupts, Disturbance::kBusySibling};
constexpr Shape kDisturbed = Shape::kMixed;
constexpr uint64_t kPeriodMin = 200, kPeriodSpread = 1000;  // branches

uint64_t chunks(const Bench& bench) { return skid_conditions(bench.host).size() * kChunksEach; }

// So many alarms of one condition, the disturbance already there.
Status alarms(Bench& bench, Shape shape, uint64_t samples, uint64_t seed, uint64_t pause,
              AlarmTally& tally) {
  pmu::Random random(seed);
  for (uint64_t i = 0; i < samples; ++i) {
    if (pause != 0) bench.host.pause(pause);
    const uint64_t period = kPeriodMin + random.below(kPeriodSpread);
    const auto alarm = bench.host.alarm(shape, period, kPatience);
    if (!alarm.ok()) return alarm.error();
    tally.add(period, *alarm);
  }
  return Done{};
}

Status run(Bench& bench, uint64_t chunk, uint64_t seed, Measurements& measured) {
  // Conditions take turns, so that what is kept of a campaign that was stopped has some of each.
  const auto conditions = skid_conditions(bench.host);
  const SkidCondition& condition = conditions[chunk % conditions.size()];
  const uint64_t samples = bench.amounts.skid_samples / chunks(bench);
  AlarmTally tally;
  if (Status s = bench.host.disturb(condition.disturbance); !s.ok()) return s;
  const Status done = alarms(bench, condition.shape, samples, seed, pause_between(measured), tally);
  if (Status s = bench.host.disturb(Disturbance::kNone); !s.ok()) return s;
  if (!done.ok()) return done;
  measured.skid[name_of(condition)].add(tally);
  for (const Disturbance disturbance : kDisturbances)
    if (const auto why = bench.host.why_not(disturbance))
      measured.skipped["skid " + name_of({kDisturbed, disturbance})] = *why;
  return Done{};
}

}  // namespace

std::vector<SkidCondition> skid_conditions(const ExperimentHost& host) {
  std::vector<SkidCondition> out;
  for (const Shape shape : host.shapes()) out.push_back({shape, Disturbance::kNone});
  for (const Disturbance disturbance : kDisturbances)
    if (!host.why_not(disturbance)) out.push_back({kDisturbed, disturbance});
  return out;
}

std::string name_of(const SkidCondition& condition) {
  const std::string shape(name_of(condition.shape));
  if (condition.disturbance == Disturbance::kNone) return shape;
  return shape + "+" + std::string(name_of(condition.disturbance));
}

const Experiment kSkid{"skid",
                       "how late an alarm comes is drawn from one distribution, whatever code "
                       "runs, amid whatever, and whatever its period",
                       chunks, run};

}  // namespace us::calib
