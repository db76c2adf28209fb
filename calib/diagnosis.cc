#include "calib/diagnosis.h"

#include <algorithm>
#include <fmt/format.h>

#include "calib/statistics.h"
#include "pmu/profile.h"

namespace us::calib {
namespace {

constexpr double kPeriodConfidence = 1 - kFalseAlarm;

CountTally tally(const Measurements& measured, const std::string& probe) {
  const auto found = measured.counts.find(probe);
  return found == measured.counts.end() ? CountTally{} : found->second;
}

// All shapes together; a code that counts taken branches only leaves others out, and adds none.
CountTally all_shapes(const Measurements& measured, const std::string& suffix) {
  CountTally sum;
  for (const Shape shape : {Shape::kTaken, Shape::kNotTaken, Shape::kMixed})
    sum.add(tally(measured, std::string(name_of(shape)) + suffix));
  return sum;
}
CountTally quiet(const Measurements& m) { return all_shapes(m, ""); }
CountTally stormy(const Measurements& m) { return all_shapes(m, "+interrupts"); }

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

double mean_over(const CountTally& t) {
  return t.pieces_over == 0 ? 0 : static_cast<double>(t.over) / static_cast<double>(t.pieces_over);
}

// More pieces counted too many while the host was interrupted than an equal lot did in quiet; where
// it is few, and none in quiet, interrupts are still the likelier cause.
bool interrupts_add(const Measurements& measured) {
  constexpr double kChance = 1e-4;
  const CountTally calm = quiet(measured), storm = stormy(measured);
  if (storm.pieces_over == 0) return false;
  if (calm.pieces_over == 0) return true;
  const double part = share(storm.branches, storm.branches + calm.branches);
  return binomial_tail(storm.pieces_over + calm.pieces_over, part, storm.pieces_over) < kChance;
}

}  // namespace

std::optional<Diagnosis> taken_only_event(const Measurements& measured) {
  const CountTally taken = tally(measured, "taken"), not_taken = tally(measured, "not-taken");
  const bool all_taken = taken.branches != 0 && share(taken.counted, taken.branches) > 0.99;
  const bool few_others =
      not_taken.branches != 0 && share(not_taken.under, not_taken.branches) > 0.5;
  if (!all_taken || !few_others) return std::nullopt;
  return Diagnosis{
      pmu::Quirk::kTakenOnlyEvent,
      fmt::format("of {} branches in loops of not-taken ones {} were counted, of {} in loops of "
                  "taken ones {}",
                  not_taken.branches, not_taken.counted, taken.branches, taken.counted)};
}

std::optional<Diagnosis> host_interrupt_overcount(const Measurements& measured) {
  if (!interrupts_add(measured)) return std::nullopt;
  const CountTally calm = quiet(measured), storm = stormy(measured);
  return Diagnosis{
      pmu::Quirk::kHostInterruptOvercount,
      fmt::format("{} of {} pieces of code were counted {} branches too many under {} interrupts; "
                  "{} of {} in quiet",
                  storm.pieces_over, storm.pieces, storm.over, storm.interrupts, calm.pieces_over,
                  calm.pieces)};
}

// What is too much with nobody interrupting; unless it is as little at a time as interrupts add,
// and rare: a quiet host is interrupted too.
std::optional<Diagnosis> smi_leak(const Measurements& measured) {
  const CountTally calm = quiet(measured);
  if (calm.pieces_over == 0) return std::nullopt;
  if (interrupts_add(measured) && mean_over(calm) < 4 * mean_over(stormy(measured)) &&
      share(calm.pieces_over, calm.pieces) <
          share(stormy(measured).pieces_over, stormy(measured).pieces) / 4)
    return std::nullopt;
  return Diagnosis{
      pmu::Quirk::kSmiLeak,
      fmt::format("{} of {} quiet pieces of code were counted too many, by {:.0f} branches on "
                  "average and {} at most",
                  calm.pieces_over, calm.pieces, mean_over(calm), calm.over_max)};
}

std::optional<Diagnosis> lost_overflow(const Measurements& measured) {
  const uint64_t missing = measured.alarms_missing();
  if (missing == 0) return std::nullopt;
  uint64_t armed = measured.sparse.armed;
  for (const auto& [shape, alarms] : measured.skid) armed += alarms.armed;
  return Diagnosis{pmu::Quirk::kLostOverflow,
                   fmt::format("{} of {} alarms, set one at a time and far from one another, never "
                               "came",
                               missing, armed)};
}

// The chance that the `latest` latest of `all` alarms are all among `few` of them, were it for
// nothing but chance: whatever one distribution they come from.
double chance_all_among(uint64_t latest, uint64_t few, uint64_t all) {
  double chance = 1;
  for (uint64_t i = 0; i < latest && chance > 0; ++i)
    chance *= i < few ? static_cast<double>(few - i) / static_cast<double>(all - i) : 0;
  return chance;
}

// Whether alarms that were not set in quick succession, of all experiments, are earlier than the
// storm's latest, and too many for these to be later than all of them by chance.
bool storm_is_latest(const Measurements& measured, uint64_t far) {
  const AlarmTally& storm = measured.storm;
  uint64_t calm = measured.sparse.late.samples(), latest = measured.sparse.late.max();
  for (const auto& [condition, alarms] : measured.skid) {
    calm += alarms.late.samples();
    if (!alarms.late.empty()) latest = std::max(latest, alarms.late.max());
  }
  const uint64_t later = storm.late.count_from(std::max(far, latest + 1));
  return later != 0 && chance_all_among(later, storm.armed, storm.armed + calm) < kFalseAlarm;
}

// Too late for the distribution that alarms set far apart come from, tail and all; later than any
// that were not set in quick succession; or, where that distribution has no end, late or missing
// more often than any chance allows.
std::optional<Diagnosis> throttling(const Measurements& measured) {
  const AlarmTally& few = measured.sparse;
  const AlarmTally& many = measured.storm;
  if (few.late.empty() || many.armed == 0) return std::nullopt;
  uint64_t leaked = 0;  // a clock that leaps makes any alarm look late
  for (const auto& [probe, counts] : measured.counts) leaked = std::max(leaked, counts.over_max);
  const uint64_t usual = std::max(few.late.max(), uint64_t{1});
  const uint64_t far = 2 * usual + 1000 + 2 * leaked;
  const uint64_t reach = Tail(few.late).reach(1e-9, 1 - kFalseAlarm).high;
  const uint64_t too_late = many.late.count_from(std::max(far, reach));
  const uint64_t late = many.late.count_from(far) + many.missing;
  const double bound = probability_bound(few.missing, few.armed, 1 - kFalseAlarm);
  if (too_late == 0 && !storm_is_latest(measured, far) &&
      (late == 0 || binomial_tail(many.armed, bound, late) >= kFalseAlarm))
    return std::nullopt;
  return Diagnosis{
      pmu::Quirk::kThrottling,
      fmt::format("{} of {} alarms set in quick succession came up to {} branches late or not at "
                  "all; of {} set far apart the latest came {} late",
                  late, many.armed, many.late.max(), few.armed, few.late.max())};
}

// By how much later short periods are than long ones, at a low quantile: there the skids of all
// parts lie close together.
Interval raised_period(const Measurements& measured) {
  const auto shortest = measured.periods.find(1), longest = measured.periods.find(1000);
  const bool have = shortest != measured.periods.end() && longest != measured.periods.end();
  if (!have || shortest->second.late.empty() || longest->second.late.empty()) return {1, 1, 1};
  constexpr double kLow = 0.05;
  const Interval one = quantile(shortest->second.late, kLow, kPeriodConfidence);
  const Interval long_one = quantile(longest->second.late, kLow, kPeriodConfidence);
  const auto above = [](uint64_t a, uint64_t b) { return a > b ? a - b + 1 : 1; };
  return {above(one.estimate, long_one.estimate), above(one.low, long_one.high),
          above(one.high, long_one.low)};
}

std::optional<Diagnosis> minimum_period(const Measurements& measured) {
  const Interval raised = raised_period(measured);
  if (raised.low <= 1) return std::nullopt;
  const bool is_32 = raised.holds(32), is_128 = raised.holds(128);
  if (is_32 == is_128) return std::nullopt;
  return Diagnosis{is_32 ? pmu::Quirk::kMinimumPeriod32 : pmu::Quirk::kMinimumPeriod128,
                   fmt::format("alarms with a period of 1 come as if it were {} ({} to {})",
                               raised.estimate, raised.low, raised.high)};
}

std::optional<Diagnosis> unbounded_skid(const TailFit& tail, const Interval& reach) {
  constexpr double kHeavy = 0.3;
  const bool heavy = tail.kind == TailKind::kFitted && tail.pareto.shape > kHeavy;
  if (!heavy && reach.high <= pmu::kMarginMax) return std::nullopt;
  if (heavy && reach.high < 100 * std::max<uint64_t>(tail.threshold, 10)) return std::nullopt;
  return Diagnosis{
      pmu::Quirk::kUnboundedSkid,
      fmt::format("the tail of the skid falls off slowly (shape {:.2f}) and has no end "
                  "in sight; the latest of {} alarms came {} branches late",
                  tail.pareto.shape, tail.samples, tail.largest)};
}

std::vector<Diagnosis> diagnose(const Measurements& measured, const TailFit& tail,
                                const Interval& reach) {
  std::vector<Diagnosis> found;
  const auto wrong_code = taken_only_event(measured);
  for (const auto& diagnosis :
       {wrong_code, host_interrupt_overcount(measured), smi_leak(measured),
        // Alarms over code of which nothing is counted cannot come.
        wrong_code ? std::nullopt : lost_overflow(measured), throttling(measured),
        minimum_period(measured),
        // Measured by a clock that leaps or leaves out, it is no skid that is seen.
        exact(measured) ? unbounded_skid(tail, reach) : std::nullopt})
    if (diagnosis) found.push_back(*diagnosis);
  return found;
}

bool exact(const Measurements& measured) {
  return !measured.counts.empty() &&
         std::all_of(measured.counts.begin(), measured.counts.end(),
                     [](const auto& entry) { return entry.second.exact(); });
}

}  // namespace us::calib
