// `understudy hostcheck`: what this host can do, row by row.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "hv/kvm/exit_storms.h"
#include "hv/kvm/host_check.h"
#include "hv/kvm/trace_figures.h"
#include "pmu/perf_counter.h"
#include "tools/host.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct HostcheckOptions {
  bool json = false;
  bool quick = false;
  uint64_t exits = 0;  // of each kind; 0: the counter is not held against them
  std::string need;
};

struct Mode {
  const char* name;
  bool hv::kvm::HostModes::*there;
};
constexpr Mode kModes[] = {{"record_soft", &hv::kvm::HostModes::record_soft},
                           {"record_kvm_steps", &hv::kvm::HostModes::record_kvm_steps},
                           {"record_kvm_stock", &hv::kvm::HostModes::record_kvm_stock},
                           {"record_kvm_patched", &hv::kvm::HostModes::record_kvm_patched},
                           {"ipt", &hv::kvm::HostModes::ipt}};

// The counter under one kind of exit after the other; an error where it could not be done.
struct Measured {
  hv::kvm::ExitKind kind;
  Result<hv::kvm::StormResult> result;
};

struct Measurements {
  std::vector<Measured> storms;
  std::optional<Result<hv::kvm::TraceFigures>> trace;  // nothing: not measured
};

Measurements measure(const HostSeams& seams, uint64_t exits) {
  constexpr uint64_t kCuts = 2000;
  hv::kvm::KvmOptions options;
  options.counter = [&seams](int signal) { return hv::kvm::open_counter(seams.host(), signal); };
  Measurements out;
  for (const hv::kvm::ExitKind kind : hv::kvm::all_exit_kinds())
    out.storms.push_back({kind, hv::kvm::run_storm(*seams.kvm, options, kind, exits)});
  out.trace = hv::kvm::measure_trace(*seams.kvm, *seams.trace, options, std::min(exits, kCuts));
  return out;
}

std::string one_line(const UserError& error) {
  return fmt::format("{} [{}]: {}", error.what, error.id, error.seen);
}

nlohmann::ordered_json to_json(const Measured& m) {
  nlohmann::ordered_json row{{"exits_by", name_of(m.kind)}};
  if (!m.result.ok()) {
    row["error"] = one_line(m.result.error());
    return row;
  }
  const hv::kvm::StormResult& r = *m.result;
  row["exits"] = r.exits;
  row["branches"] = r.expected;
  row["counted"] = r.counted;
  row["exact"] = r.exact();
  row["ns_each"] = r.exits == 0 ? 0 : 1e9 * r.seconds / static_cast<double>(r.exits);
  if (r.kind == hv::kvm::ExitKind::kAlarms)
    row["late"] = {{"p99", r.late_p99}, {"max", r.late_max}};
  return row;
}

nlohmann::ordered_json to_json(const Result<hv::kvm::TraceFigures>& trace) {
  if (!trace.ok()) return {{"error", one_line(trace.error())}};
  return {{"trace_cuts", trace->cuts},
          {"trace_cut_ns", trace->cut_ns},
          {"trace_bytes", trace->bytes},
          {"trace_branches", trace->branches},
          {"trace_deferred_tips", trace->deferred_tips},
          {"trace_long_tnts", trace->long_tnts},
          {"trace_loss", trace->loss}};
}

void print_text(const Measurements& measured) {
  for (const Measured& m : measured.storms) {
    if (!m.result.ok()) {
      fmt::print("{:<12} {}\n", name_of(m.kind), one_line(m.result.error()));
      continue;
    }
    const hv::kvm::StormResult& r = *m.result;
    fmt::print("{:<12} {} exits, {:.2f} us each; {} branches, {} counted: {}", name_of(m.kind),
               r.exits, r.exits == 0 ? 0 : 1e6 * r.seconds / static_cast<double>(r.exits),
               r.expected, r.counted, r.exact() ? "exact" : "WRONG");
    if (r.kind == hv::kvm::ExitKind::kAlarms)
      fmt::print("; late by {} at most, {} at p99", r.late_max, r.late_p99);
    fmt::print("\n");
  }
  if (!measured.trace) return;
  if (const auto& trace = *measured.trace; trace.ok()) {
    fmt::print("{:<12} {} cuts, {:.2f} us each; {} bytes, {} deferred TIPs, {} long TNTs{}{}\n",
               "trace", trace->cuts, trace->cut_ns / 1e3, trace->bytes, trace->deferred_tips,
               trace->long_tnts, trace->loss.empty() ? "" : "; lost: ", trace->loss);
  } else {
    fmt::print("{:<12} {}\n", "trace", one_line(trace.error()));
  }
}

void print_json(const hv::kvm::HostReport& report, const Measurements& measured,
                const HostSeams& seams) {
  auto rows = nlohmann::ordered_json::array();
  for (const hv::kvm::HostRow& row : report.rows)
    rows.push_back({{"id", row.id},
                    {"status", name_of(row.status)},
                    {"seen", row.seen},
                    {"needed", row.needed},
                    {"mend", row.mend}});
  nlohmann::ordered_json modes;
  for (const Mode& mode : kModes) modes[mode.name] = report.modes.*mode.there;
  nlohmann::ordered_json out{
      {"schema", "understudy.hostcheck.v1"}, {"rows", rows}, {"modes", modes}};
  if (const auto event = pmu::usable_event(seams.system->cpu()); event.ok())
    out["counter"] = {{"processor", (*event)->name}, {"uncalibrated_margin", (*event)->skid}};
  for (const Measured& m : measured.storms) out["measured"].push_back(to_json(m));
  if (measured.trace) out["trace"] = to_json(*measured.trace);
  fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_text(const hv::kvm::HostReport& report, const Globals& globals) {
  for (const hv::kvm::HostRow& row : report.rows) {
    const bool good = row.status == hv::kvm::RowStatus::kPass;
    if (good && globals.quiet) continue;
    fmt::print("{:<4}  {:<16} {}\n", name_of(row.status), row.id, row.seen);
    if (good && globals.verbose == 0) continue;
    fmt::print("      {:<16} needed: {}\n", "", row.needed);
    if (!row.mend.empty()) fmt::print("      {:<16} mend:   {}\n", "", row.mend);
  }
  for (const Mode& mode : kModes) {
    fmt::print("{:<20} {}", mode.name, report.modes.*mode.there ? "yes" : "no");
    const auto blocking = report.blocking(mode.name);
    for (size_t i = 0; i < blocking.size(); ++i)
      fmt::print("{}{}", i == 0 ? ": " : ", ", blocking[i]->id);
    fmt::print("\n");
  }
}

int hostcheck(const HostcheckOptions& options, const Globals& globals) {
  const HostSeams seams = open_host();
  const hv::kvm::HostReport report = hv::kvm::check_host(seams.host(), {.quick = options.quick});
  Measurements measured;
  if (options.exits != 0) measured = measure(seams, options.exits);
  if (options.json) {
    print_json(report, measured, seams);
  } else {
    print_text(report, globals);
    print_text(measured);
  }
  if (const int code = finish_output(); code != 0) return code;
  for (const Mode& mode : kModes)
    if (options.need == mode.name && !(report.modes.*mode.there))
      return static_cast<int>(ExitCode::kHostCannot);
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace

void add_hostcheck(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<HostcheckOptions>();
  CLI::App* verb = app.add_subcommand("hostcheck", "what this host can do, row by row");
  verb->add_flag("--json", options->json, "one JSON document");
  verb->add_flag("--quick", options->quick, "run no guests; rows that need one are left open");
  verb->add_option("--exits", options->exits,
                   "also leave a guest so often by each kind of exit, and hold the counter against "
                   "where it stands")
      ->check(CLI::Range(uint64_t{1}, hv::kvm::kExitsMax));
  std::vector<std::string> names;
  for (const Mode& mode : kModes) names.emplace_back(mode.name);
  verb->add_option("--need", options->need, "exit 3 unless this mode works here")
      ->check(CLI::IsMember(names));
  verb->callback([options, &globals, &exit_code] { exit_code = hostcheck(*options, globals); });
}

}  // namespace us::tools
