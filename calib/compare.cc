#include "calib/compare.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace us::calib {
namespace {

using pmu::HostProfile;

constexpr const char* kVerdicts[] = {"same", "noted", "CHANGED"};

// Two figures, each with where its truth lies.
struct Figure {
  uint64_t value, low, high;
  bool known() const { return high != 0; }
};

Comparison figures(const std::string& what, const Figure& a, const Figure& b) {
  const auto text = [](const Figure& f) {
    return f.known() ? fmt::format("{} ({} to {})", f.value, f.low,
                                   f.high >= pmu::kReachMax ? "no bound" : std::to_string(f.high))
                     : std::to_string(f.value);
  };
  const bool both = a.known() && b.known();
  const bool same = both ? a.low <= b.high && b.low <= a.high : a.value == b.value;
  return {what, text(a), text(b), same ? Verdict::kSame : Verdict::kChanged};
}

Comparison texts(const std::string& what, const std::string& a, const std::string& b,
                 Verdict otherwise) {
  return {what, a.empty() ? "?" : a, b.empty() ? "?" : b, a == b ? Verdict::kSame : otherwise};
}

std::string quirks_of(const HostProfile& profile) {
  std::vector<std::string> names;
  for (const pmu::Quirk quirk : profile.quirks) names.emplace_back(pmu::info_of(quirk).name);
  std::sort(names.begin(), names.end());
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

std::string cpu_of(const HostProfile& p) {
  return fmt::format("{} family {} model {} stepping {}", p.host.cpu, p.host.family, p.host.model,
                     p.host.stepping);
}

void compare_skid(const HostProfile& a, const HostProfile& b, std::vector<Comparison>& rows) {
  if (!a.skid || !b.skid) return;
  const auto p50 = [](const pmu::SkidStatistics& s) {
    return Figure{s.p50, s.p50_low, s.p50_high};
  };
  const auto p99 = [](const pmu::SkidStatistics& s) {
    return Figure{s.p99, s.p99_low, s.p99_high};
  };
  rows.push_back(figures("skid p50", p50(*a.skid), p50(*b.skid)));
  rows.push_back(figures("skid p99", p99(*a.skid), p99(*b.skid)));
  // What was seen is no estimate: with a margin that is right one alarm in many reaches it.
  rows.push_back({"skid max", std::to_string(a.skid->max), std::to_string(b.skid->max),
                  b.skid->max >= a.margin ? Verdict::kNoted : Verdict::kSame});
}

// A kernel measures the counter anew at each boot, and is off by some ten parts in a million.
constexpr double kSameTscPpm = 500;

void compare_tsc(const HostProfile& a, const HostProfile& b, std::vector<Comparison>& rows) {
  if (!a.tsc || !b.tsc || a.tsc->hz <= 0) return;
  const auto text = [](const pmu::TscStatistics& t) {
    return fmt::format("{:.6f} MHz ({:.6f} to {:.6f})", t.hz / 1e6, t.hz_low / 1e6,
                       t.hz_high / 1e6);
  };
  const bool overlap = a.tsc->hz_low <= b.tsc->hz_high && b.tsc->hz_low <= a.tsc->hz_high;
  const double apart_ppm = std::abs(b.tsc->hz / a.tsc->hz - 1) * 1e6;
  rows.push_back({"TSC rate", text(*a.tsc), text(*b.tsc),
                  overlap                    ? Verdict::kSame
                  : apart_ppm <= kSameTscPpm ? Verdict::kNoted
                                             : Verdict::kChanged});
}

}  // namespace

std::vector<Comparison> compare(const HostProfile& a, const HostProfile& b) {
  std::vector<Comparison> rows{
      texts("processor", cpu_of(a), cpu_of(b), Verdict::kChanged),
      texts("microcode", a.host.microcode, b.host.microcode, Verdict::kNoted),
      texts("kernel", a.host.kernel, b.host.kernel, Verdict::kNoted),
      texts("event", fmt::format("{} {:#x}", a.event, a.config),
            fmt::format("{} {:#x}", b.event, b.config), Verdict::kChanged),
      texts("exact", a.exact ? "yes" : "no", b.exact ? "yes" : "no", Verdict::kChanged),
      texts("quirks", quirks_of(a), quirks_of(b), Verdict::kChanged),
      texts("minimum period", std::to_string(a.minimum_period), std::to_string(b.minimum_period),
            Verdict::kChanged)};
  compare_skid(a, b, rows);
  compare_tsc(a, b, rows);
  if (a.tail && b.tail && a.tail->overshoot_probability == b.tail->overshoot_probability) {
    const auto reach = [](const pmu::TailStatistics& t) {
      return Figure{t.reach, t.reach_low, t.reach_high};
    };
    rows.push_back(figures("least safe margin", reach(*a.tail), reach(*b.tail)));
  }
  if (b.tail && b.tail->reach_low > a.margin)
    rows.push_back({"margin enough", std::to_string(a.margin),
                    "at least " + std::to_string(b.tail->reach_low) + " is needed",
                    Verdict::kChanged});
  rows.push_back({"margin", std::to_string(a.margin), std::to_string(b.margin),
                  a.margin == b.margin ? Verdict::kSame : Verdict::kNoted});
  return rows;
}

bool changed(const std::vector<Comparison>& rows) {
  return std::any_of(rows.begin(), rows.end(),
                     [](const Comparison& row) { return row.verdict == Verdict::kChanged; });
}

std::string comparison_text(const std::vector<Comparison>& rows) {
  std::string out;
  for (const Comparison& row : rows) {
    const char* verdict = kVerdicts[static_cast<size_t>(row.verdict)];
    out += row.was == row.is
               ? fmt::format("{:<8} {:<18} {}\n", verdict, row.what, row.was)
               : fmt::format("{:<8} {:<18} {} -> {}\n", verdict, row.what, row.was, row.is);
  }
  return out;
}

nlohmann::json comparison_json(const std::vector<Comparison>& rows) {
  nlohmann::json list = nlohmann::json::array();
  for (const Comparison& row : rows)
    list.push_back({{"what", row.what},
                    {"was", row.was},
                    {"is", row.is},
                    {"verdict", row.verdict == Verdict::kSame    ? "same"
                                : row.verdict == Verdict::kNoted ? "noted"
                                                                 : "changed"}});
  return {{"schema", "understudy.calibration-comparison.v1"},
          {"changed", changed(rows)},
          {"rows", list}};
}

}  // namespace us::calib
