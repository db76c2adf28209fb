#include "calib/calibration.h"

#include <algorithm>

#include "calib/statistics.h"

namespace us::calib {
namespace {

// Statements made at once: p50, p99 and the reach; each has a third of the doubt. Apart from these
// the TSC's rate and its drift, at once, too.
double each(const Wanted& wanted) { return 1 - (1 - wanted.confidence) / 3; }
double each_of_tsc(const Wanted& wanted) { return 1 - (1 - wanted.confidence) / 2; }

// Whether shapes draw from one distribution, as far as the share beyond the pooled p90 tells.
bool agree(const Measurements& measured, const Histogram& pooled) {
  const uint64_t limit = pooled.at_rank(pooled.samples() * 9 / 10);
  const double n = static_cast<double>(pooled.samples());
  const double beyond = static_cast<double>(pooled.count_from(limit)) / n;
  if (beyond >= 1) return true;
  double statistic = 0;
  int shapes = 0;
  for (const auto& [name, tally] : measured.skid) {
    const double samples = static_cast<double>(tally.late.samples());
    if (samples < 100) continue;
    const double expected = samples * beyond;
    const double off = static_cast<double>(tally.late.count_from(limit)) - expected;
    statistic += off * off / (expected * (1 - beyond));
    ++shapes;
  }
  return shapes < 2 || chi_squared_tail(statistic, shapes - 1) >= kFalseAlarm;
}

// The shape that needs the largest margin.
std::string worst_shape(const Measurements& measured, const Wanted& wanted) {
  std::string worst;
  uint64_t reach = 0;
  for (const auto& [name, tally] : measured.skid) {
    if (tally.late.empty()) continue;
    const uint64_t high = Tail(tally.late).reach(wanted.overshoot_probability, each(wanted)).high;
    if (!worst.empty() && high <= reach) continue;
    worst = name;
    reach = high;
  }
  return worst;
}

uint64_t minimum_of(const Interval& raised, const std::vector<Diagnosis>& diagnoses) {
  for (const Diagnosis& d : diagnoses) {
    if (d.quirk == pmu::Quirk::kMinimumPeriod32) return 32;
    if (d.quirk == pmu::Quirk::kMinimumPeriod128) return 128;
  }
  return raised.low > 1 ? std::clamp<uint64_t>(raised.high, 1, pmu::kMinimumPeriodMax) : 1;
}

}  // namespace

std::optional<Calibration> analyse(const Measurements& measured, const Wanted& wanted) {
  Calibration c{.skid = measured.skid_of_all(), .skid_of = "all", .wanted = wanted};
  if (c.skid.empty()) return std::nullopt;
  if (!agree(measured, c.skid)) {
    c.skid_of = worst_shape(measured, wanted);
    c.skid = measured.skid.at(c.skid_of).late;
  }
  c.p50 = quantile(c.skid, 0.50, each(wanted));
  c.p99 = quantile(c.skid, 0.99, each(wanted));
  const Tail tail(c.skid);
  c.tail = tail.fit();
  c.costs = unit_costs_of(measured.costs);
  c.costs_measured = measured.costs.alarm_ns.has_value();
  c.rate = stop_rate(measured.landings, c.skid).value_or(StopRate{});
  c.choice =
      choose_margin(c.skid, tail, wanted.overshoot_probability, each(wanted), c.costs, c.rate);
  c.raised_period = raised_period(measured);
  c.diagnoses = diagnose(measured, c.tail, c.choice.reach);
  c.minimum_period = minimum_of(c.raised_period, c.diagnoses);
  c.exact = exact(measured);
  c.tsc = tsc_rate(measured.tsc, each_of_tsc(wanted));
  return c;
}

pmu::HostProfile profile_of(const Calibration& c, const Measurements& measured,
                            const ExperimentHost& host,
                            const std::optional<pmu::ModelSettings>& model,
                            const std::string& date) {
  pmu::HostProfile profile{
      .event = std::string(host.event()),
      .config = host.event_config(),
      .margin = c.choice.margin,
      .minimum_period = c.minimum_period,
      .exact = c.exact,
      .confidence = model ? pmu::Confidence::kModel : pmu::Confidence::kMeasured,
      .date = date,
      .host = host.identity(),
      .step_ns = measured.costs.step_ns,
      .model = model};
  for (const Diagnosis& d : c.diagnoses) profile.quirks.push_back(d.quirk);
  profile.skid = pmu::SkidStatistics{.p50 = c.p50.estimate,
                                     .p99 = c.p99.estimate,
                                     .max = c.tail.largest,
                                     .samples = c.skid.samples(),
                                     .p50_low = c.p50.low,
                                     .p50_high = c.p50.high,
                                     .p99_low = c.p99.low,
                                     .p99_high = c.p99.high};
  profile.tail = pmu::TailStatistics{.kind = std::string(name_of(c.tail.kind)),
                                     .reach = c.choice.reach.estimate,
                                     .reach_low = c.choice.reach.low,
                                     .reach_high = std::min(c.choice.reach.high, pmu::kReachMax),
                                     .overshoot_probability = c.wanted.overshoot_probability,
                                     .confidence = c.wanted.confidence};
  for (const auto& [probe, tally] : measured.counts)
    profile.overcount[probe] = tally.over_per_million();
  profile.read_ns = measured.costs.read_ns;
  profile.arm_ns = measured.costs.arm_ns;
  if (c.tsc)
    profile.tsc = pmu::TscStatistics{.hz = c.tsc->hz,
                                     .hz_low = c.tsc->hz_low,
                                     .hz_high = c.tsc->hz_high,
                                     .drift = c.tsc->drift,
                                     .drift_low = c.tsc->drift_low,
                                     .drift_high = c.tsc->drift_high,
                                     .seconds = c.tsc->seconds,
                                     .clock_source = clock_source()};
  return profile;
}

}  // namespace us::calib
