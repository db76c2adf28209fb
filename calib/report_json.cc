#include "calib/report.h"

namespace us::calib {
namespace {

using nlohmann::json;

json to_json(const Interval& interval) {
  json high = interval.high > pmu::kReachMax ? json() : json(interval.high);
  return {{"estimate", interval.estimate}, {"low", interval.low}, {"high", high}};
}

json or_null(const std::optional<double>& value) { return value ? json(*value) : json(); }

json skid_json(const Calibration& c, const Measurements& measured) {
  json shapes = json::object();
  for (const auto& [name, tally] : measured.skid) {
    if (tally.late.empty()) continue;
    shapes[name] = {{"samples", tally.late.samples()},
                    {"p50", quantile(tally.late, 0.5, c.wanted.confidence).estimate},
                    {"p99", quantile(tally.late, 0.99, c.wanted.confidence).estimate},
                    {"max", tally.late.max()}};
  }
  return {
      {"p50", c.p50.estimate},          {"p99", c.p99.estimate}, {"max", c.tail.largest},
      {"samples", c.skid.samples()},    {"of", c.skid_of},       {"p50_interval", to_json(c.p50)},
      {"p99_interval", to_json(c.p99)}, {"shapes", shapes}};
}

json tail_json(const TailFit& tail) {
  json out{{"kind", name_of(tail.kind)}, {"largest", tail.largest}};
  if (tail.kind == TailKind::kCeiling) {
    out["at_ceiling"] = tail.at_ceiling;
    out["chance_of_no_ceiling"] = tail.ceiling_chance;
  } else if (tail.kind == TailKind::kFitted) {
    out["threshold"] = tail.threshold;
    out["excesses"] = tail.excesses;
    out["shape"] = tail.pareto.shape;
    out["scale"] = tail.pareto.scale;
    out["goodness"] = tail.goodness;
  }
  return out;
}

json exactness_json(const Measurements& measured) {
  json out = json::object();
  for (const auto& [probe, t] : measured.counts)
    out[probe] = {{"branches", t.branches},
                  {"counted", t.counted},
                  {"pieces", t.pieces},
                  {"pieces_over", t.pieces_over},
                  {"pieces_under", t.pieces_under},
                  {"over", t.over},
                  {"under", t.under},
                  {"interrupts", t.interrupts},
                  {"exact", t.exact()}};
  return out;
}

json landing_json(const Calibration& c, const Measurements& measured) {
  json out = json::array();
  for (const auto& [margin, t] : measured.landings)
    out.push_back({{"with_margin", margin},
                   {"landings", t.landings},
                   {"alarms", t.alarms},
                   {"stops", t.stops},
                   {"overshoots", t.overshoots},
                   {"cost_ns", measured_cost_ns(t, c.costs)},
                   {"expected_ns", expected_cost_ns(margin, c.skid, c.tail, c.costs, c.rate)}});
  return out;
}

json tsc_json(const std::optional<TscRate>& tsc, const std::optional<pmu::TscStatistics>& kept) {
  if (!tsc) return {};
  return {{"hz", tsc->hz},
          {"hz_low", tsc->hz_low},
          {"hz_high", tsc->hz_high},
          {"drift_ppm_per_hour", tsc->drift},
          {"drift_low", tsc->drift_low},
          {"drift_high", tsc->drift_high},
          {"seconds", tsc->seconds},
          {"samples", tsc->samples},
          {"clock_source", kept ? kept->clock_source : ""}};
}

}  // namespace

json report_json(const Calibration& c, const Measurements& measured,
                 const pmu::HostProfile& profile, const std::string& backend, bool complete) {
  json quirks = json::array(), overcount = json::object();
  for (const Diagnosis& d : c.diagnoses) {
    const pmu::QuirkInfo& info = pmu::info_of(d.quirk);
    quirks.push_back({{"name", info.name},
                      {"evidence", d.evidence},
                      {"effect", info.effect},
                      {"remedy", info.remedy},
                      {"refuses_recording", info.on_recording == pmu::QuirkEffect::kRefuse}});
  }
  for (const auto& [probe, value] : profile.overcount) overcount[probe] = value;
  const pmu::HostIdentity& host = profile.host;
  return {{"schema", kCalibrationSchema},
          {"backend", backend},
          {"complete", complete},
          {"date", profile.date},
          {"host",
           {{"cpu", host.cpu},
            {"vendor", host.vendor},
            {"family", host.family},
            {"model", host.model},
            {"stepping", host.stepping},
            {"microcode", host.microcode},
            {"kernel", host.kernel}}},
          {"event", profile.event},
          {"config", profile.config},
          {"margin", profile.margin},
          {"minimum_period", profile.minimum_period},
          {"exact", profile.exact},
          {"overshoot_probability", c.wanted.overshoot_probability},
          {"confidence", c.wanted.confidence},
          {"reach", to_json(c.choice.reach)},
          {"bounded", c.choice.bounded},
          {"skid", skid_json(c, measured)},
          {"tail", tail_json(c.tail)},
          {"overcount", overcount},
          {"exactness", exactness_json(measured)},
          {"quirks", quirks},
          {"landing", landing_json(c, measured)},
          {"unit_costs",
           {{"alarm_ns", c.costs.alarm_ns},
            {"stop_ns", c.costs.stop_ns},
            {"overshoot_ns", c.costs.overshoot_ns},
            {"measured", c.costs_measured}}},
          {"read_ns", or_null(measured.costs.read_ns)},
          {"arm_ns", or_null(measured.costs.arm_ns)},
          {"alarm_ns", or_null(measured.costs.alarm_ns)},
          {"step_ns", or_null(measured.costs.step_ns)},
          {"break_ns", or_null(measured.costs.break_ns)},
          {"tsc", tsc_json(c.tsc, profile.tsc)},
          {"skipped", measured.skipped},
          {"trace_mb_per_s", or_null(profile.trace_mb_per_s)}};
}

}  // namespace us::calib
