#include <fmt/format.h>

#include "calib/report.h"

namespace us::calib {
namespace {

std::string interval_text(const Interval& i) {
  if (i.high > pmu::kReachMax) return fmt::format("{} ({} to no bound)", i.estimate, i.low);
  return fmt::format("{} ({} to {})", i.estimate, i.low, i.high);
}

std::string tail_text(const TailFit& tail) {
  switch (tail.kind) {
    case TailKind::kCeiling:
      return fmt::format("ends at {}, where {} alarms came", tail.largest, tail.at_ceiling);
    case TailKind::kFitted:
      return fmt::format("Pareto from {} on: shape {:.3f}, scale {:.2f}, {} alarms{}",
                         tail.threshold, tail.pareto.shape, tail.pareto.scale, tail.excesses,
                         tail.goodness < 0.05 ? ", A POOR FIT" : "");
    case TailKind::kTooFewToFit: return "too few alarms to say";
  }
  return "";
}

void line(std::string& out, const char* name, const std::string& value) {
  out += fmt::format("{:<22}{}\n", name, value);
}

void add_tsc(std::string& out, const std::optional<TscRate>& tsc,
             const std::optional<pmu::TscStatistics>& kept) {
  if (!tsc) return;
  line(out, "TSC rate",
       fmt::format("{:.6f} MHz ({:.6f} to {:.6f}), {} samples over {:.1f} s", tsc->hz / 1e6,
                   tsc->hz_low / 1e6, tsc->hz_high / 1e6, tsc->samples, tsc->seconds));
  line(out, "TSC drift",
       fmt::format("{:.3f} ppm an hour ({:.3f} to {:.3f})", tsc->drift, tsc->drift_low,
                   tsc->drift_high));
  if (kept && !kept->clock_source.empty())
    line(out, "",
         fmt::format(
             "against CLOCK_MONOTONIC_RAW, which the kernel makes of {}{}", kept->clock_source,
             kept->clock_source == "tsc" ? ": the rate is its notion, the drift its own" : ""));
}

void add_skipped(std::string& out, const Measurements& measured) {
  for (const auto& [what, why] : measured.skipped)
    line(out, "not measured", fmt::format("{}: {}", what, why));
}

void add_exactness(std::string& out, const Measurements& measured) {
  out += fmt::format("\n{:<24}{:>14}{:>16}{:>12}{:>12}\n", "exactness", "branches", "interrupts",
                     "too many", "too few");
  for (const auto& [probe, t] : measured.counts)
    out += fmt::format("{:<24}{:>14}{:>16}{:>12}{:>12}\n", probe, t.branches, t.interrupts, t.over,
                       t.under);
}

void add_landings(std::string& out, const Calibration& c, const Measurements& measured) {
  if (measured.landings.empty()) return;
  out += fmt::format("\n{:<24}{:>14}{:>16}{:>12}{:>12}\n", "landing with margin", "landings",
                     "stops each", "overshoots", "us each");
  for (const auto& [margin, t] : measured.landings) {
    if (t.landings == 0) continue;
    out += fmt::format("{:<24}{:>14}{:>16.1f}{:>12}{:>12.1f}\n", margin, t.landings,
                       static_cast<double>(t.stops) / static_cast<double>(t.landings), t.overshoots,
                       measured_cost_ns(t, c.costs) / 1000);
  }
}

void add_quirks(std::string& out, const Calibration& c) {
  out += "\n";
  if (c.diagnoses.empty()) line(out, "quirks", "none");
  for (const Diagnosis& d : c.diagnoses) {
    const pmu::QuirkInfo& info = pmu::info_of(d.quirk);
    line(out, "quirk",
         fmt::format("{}{}", info.name,
                     info.on_recording == pmu::QuirkEffect::kRefuse ? ": THIS HOST CANNOT RECORD"
                                                                    : ": handled"));
    line(out, "  seen", d.evidence);
    line(out, "  means", std::string(info.effect));
    line(out, "  mend", std::string(info.remedy));
  }
}

}  // namespace

std::string report_text(const Calibration& c, const Measurements& measured,
                        const pmu::HostProfile& profile, bool complete) {
  std::string out;
  if (!complete) line(out, "NOT COMPLETE", "stopped; what follows is from what was measured");
  line(out, "host", profile.host.cpu);
  line(out, "event", profile.event);
  line(out, "exact", c.exact ? "yes" : "NO");
  line(out, "margin",
       fmt::format("{} branches, for {:.0e} overshoots a landing", profile.margin,
                   c.wanted.overshoot_probability));
  if (!c.choice.bounded) line(out, "", "NOT ENOUGH: no margin is known to be");
  line(out, "least safe margin", interval_text(c.choice.reach));
  line(out, "minimum period", fmt::format("{} branches", c.minimum_period));
  line(out, "skid p50", interval_text(c.p50));
  line(out, "skid p99", interval_text(c.p99));
  line(out, "skid max",
       fmt::format("{} of {} alarms, shape {}", c.tail.largest, c.skid.samples(), c.skid_of));
  line(out, "skid tail", tail_text(c.tail));
  line(out, "",
       fmt::format("intervals hold all at once with confidence {:.0f} %",
                   c.wanted.confidence * 100));
  const auto cost = [&out](const char* name, const std::optional<double>& ns) {
    if (ns) line(out, name, fmt::format("{:.1f} ns", *ns));
  };
  cost("clock read", measured.costs.read_ns);
  cost("alarm set", measured.costs.arm_ns);
  cost("alarm delivered", measured.costs.alarm_ns);
  cost("single step", measured.costs.step_ns);
  cost("breakpoint", measured.costs.break_ns);
  add_tsc(out, c.tsc, profile.tsc);
  add_skipped(out, measured);
  add_exactness(out, measured);
  add_landings(out, c, measured);
  add_quirks(out, c);
  return out;
}

}  // namespace us::calib
