#include "pmu/trouble.h"

#include <fmt/format.h>

#include "pmu/quirks.h"

namespace us::pmu {
namespace {

// Parts that raise short periods raise them to one of these (pmu/quirks.h).
constexpr uint64_t kRaisedPeriods[] = {32, 128};

std::string overshot(const LandingTrouble& t) {
  return fmt::format("landing overshot its target by {} branches", t.past_target);
}

std::string name_of(Quirk quirk) { return fmt::format("quirk {}", info_of(quirk).name); }

UserError not_exact(const LandingTrouble& t) {
  const uint64_t counted = *t.counted;
  const bool few = counted < t.retired;
  const std::string mend =
      few ? fmt::format("{}: {}", name_of(Quirk::kTakenOnlyEvent),
                        info_of(Quirk::kTakenOnlyEvent).remedy)
          : fmt::format("{}: {}; {}: {}; {}: {}", name_of(Quirk::kSmiLeak),
                        info_of(Quirk::kSmiLeak).remedy, name_of(Quirk::kHostInterruptOvercount),
                        info_of(Quirk::kHostInterruptOvercount).remedy,
                        name_of(Quirk::kPmiOvercount), info_of(Quirk::kPmiOvercount).remedy);
  return {"PMU-016",
          ExitCode::kHostCannot,
          "the branch counter is not exact",
          fmt::format("it reads {}, {} {} than the guest has retired", counted,
                      few ? t.retired - counted : counted - t.retired, few ? "fewer" : "more"),
          "a count of the guest's conditional branches and of nothing else",
          mend};
}

UserError missed(const LandingTrouble& t) {
  return {
      "PMU-013",
      ExitCode::kHostCannot,
      overshot(t),
      fmt::format("an alarm {} branches ahead never came: the counter's overflow was lost",
                  t.period),
      "a counter whose every overflow interrupts",
      fmt::format("{}: {}", name_of(Quirk::kLostOverflow), info_of(Quirk::kLostOverflow).remedy)};
}

UserError throttled(const LandingTrouble& t) {
  return {"PMU-014",
          ExitCode::kHostCannot,
          overshot(t),
          fmt::format("the alarm was {} branches late because it was throttled", t.late_by),
          "alarms as often as there are inputs",
          fmt::format("{}: {}", name_of(Quirk::kThrottling), info_of(Quirk::kThrottling).remedy)};
}

// The minimum that the last alarm's period was raised to, if it looks so: later than skid has ever
// been, yet no later than skid after the minimum. 0: it does not.
uint64_t raised_to(const LandingTrouble& t) {
  const uint64_t took = t.period + t.late_by;
  for (const uint64_t minimum : kRaisedPeriods) {
    if (t.period != 0 && t.period < minimum && t.late_by > t.skid_seen && took >= minimum &&
        took <= minimum + t.skid_seen)
      return minimum;
  }
  return 0;
}

UserError period_raised(const LandingTrouble& t, uint64_t minimum) {
  const Quirk quirk = minimum == 32 ? Quirk::kMinimumPeriod32 : Quirk::kMinimumPeriod128;
  return {"PMU-015",
          ExitCode::kIncompatible,
          overshot(t),
          fmt::format("an alarm {} branches ahead came after {}", t.period, t.period + t.late_by),
          fmt::format("minimum_period = {} in the host profile, or a margin above {}", minimum,
                      t.late_by),
          fmt::format("{}: {}; `understudy calibrate -o host.toml` finds the period, name the file "
                      "as [pmu] profile",
                      name_of(quirk), info_of(quirk).remedy)};
}

UserError margin_too_small(const LandingTrouble& t) {
  return {"PMU-011",
          ExitCode::kIncompatible,
          overshot(t),
          fmt::format("the alarm was {} branches late, the margin is {}", t.late_by, t.margin),
          fmt::format("a margin above {}", t.late_by),
          "measure this host's margin: `understudy calibrate -o host.toml`, then name the file as "
          "[pmu] profile or with --pmu-profile"};
}

}  // namespace

UserError explain(const LandingTrouble& t) {
  if (t.counted && *t.counted != t.retired) return not_exact(t);
  if (t.missed) return missed(t);
  if (t.throttled) return throttled(t);
  if (const uint64_t minimum = raised_to(t); minimum != 0) return period_raised(t, minimum);
  return margin_too_small(t);
}

}  // namespace us::pmu
