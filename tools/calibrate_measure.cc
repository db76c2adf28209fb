// The measuring itself: hosts are opened, campaigns run, interrupted and resumed.
#include <chrono>
#include <ctime>

#include "calib/soft_host.h"
#include "calib/state_file.h"
#include "pmu/host_identity.h"
#include "pmu/perf_counter.h"
#include "tools/calibrate.h"
#include "tools/progress.h"
#include "tools/talk.h"

namespace us::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kKeepEvery = std::chrono::seconds(2);

Result<MeasuredHost> open_soft(const CalibrateOptions& options) {
  pmu::ModelSettings model = *pmu::default_model_profile().model;
  if (!options.pmu_profile.empty()) {
    auto profile = pmu::load_profile(options.pmu_profile);
    if (!profile.ok()) return profile.error();
    model = profile->model.value_or(pmu::ModelSettings{});
  }
  if (!options.skid.empty()) {
    auto skid = pmu::parse_skid(options.skid);
    if (!skid.ok()) return skid.error();
    model.skid = *skid;
  }
  return MeasuredHost{.host = std::make_unique<calib::SoftHost>(model), .model = model};
}

// What must be equal for a campaign to go on from a file.
std::string campaign_of(const CalibrateOptions& options, const MeasuredHost& host,
                        calib::Effort effort) {
  pmu::HostProfile who{.event = std::string(host.host->event()),
                       .config = host.host->event_config(),
                       .host = host.host->identity(),
                       .model = host.model};
  std::string conditions;
  for (const auto& condition : calib::skid_conditions(*host.host))
    conditions += " " + calib::name_of(condition);
  return fmt::format("{} {} effort {} seed {} overshoot {} confidence {} skid of{}\n{}",
                     UNDERSTUDY_VERSION, options.backend, static_cast<int>(effort), options.seed,
                     options.overshoot_probability, options.confidence, conditions,
                     pmu::to_toml(who));
}

void show_progress(ProgressLine& line, const calib::Campaign& campaign, uint64_t began_at,
                   Clock::time_point started) {
  if (!line.due()) return;
  const double elapsed = std::chrono::duration<double>(Clock::now() - started).count();
  const double done = static_cast<double>(campaign.done() - began_at);
  const double left = static_cast<double>(campaign.total() - campaign.done());
  std::string text = fmt::format(
      "calibrate: {}, step {} of {} ({:.0f}%)", campaign.current().name, campaign.done() + 1,
      campaign.total(),
      100.0 * static_cast<double>(campaign.done()) / static_cast<double>(campaign.total()));
  if (done > 0)
    text += fmt::format(", {:.1f} steps/s, {:.0f} s left", done / elapsed, elapsed * left / done);
  line.show(text);
}

void resume(calib::Campaign& campaign, const CalibrateOptions& options, const std::string& name,
            const Globals& globals) {
  if (options.state.empty()) return;
  std::string why;
  auto state = calib::load_state(options.state, name, why);
  const bool fits = state && state->done <= campaign.total();
  if (fits) campaign.resume(state->done, std::move(state->measured));
  if (globals.quiet) return;
  if (fits && campaign.done() != 0)
    fmt::print(stderr, "understudy: goes on after step {} of {}, from {}\n", campaign.done(),
               campaign.total(), options.state);
  if (!why.empty())
    fmt::print(stderr, "understudy: {} {}: measuring begins anew\n", options.state, why);
}

}  // namespace

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

Result<MeasuredHost> open_measured(const CalibrateOptions& options) {
  if (options.backend != "kvm" && (options.guest.by_steps || options.guest.cpu))
    return UserError{.id = "CAL-001",
                     .exit_code = ExitCode::kUsage,
                     .what = "only guests are stepped, or kept on a processor",
                     .seen = "--kvm-steps or --cpu with --backend " + options.backend,
                     .needed = "--backend kvm, where guests are what is measured",
                     .mend = "leave them out, or name the kvm backend"};
  if (options.backend == "soft") return open_soft(options);
  if (!options.pmu_profile.empty() || !options.skid.empty())
    return UserError{.id = "CAL-002",
                     .exit_code = ExitCode::kUsage,
                     .what = "a real counter cannot be given another skid",
                     .seen = "--skid or --pmu-profile with --backend " + options.backend,
                     .needed = "--backend soft, where the counter is modelled",
                     .mend = "leave them out, or name the soft backend"};
  if (options.backend == "kvm") return open_kvm(options);
  return open_perf();
}

Result<Measured> measure(const CalibrateOptions& options, MeasuredHost& host, calib::Effort effort,
                         const std::atomic<bool>& stop, const Globals& globals) {
  calib::Campaign campaign({.host = *host.host,
                            .amounts = calib::amounts_of(effort, host.host->backend()),
                            .machine = host.model,
                            .overshoot_probability = options.overshoot_probability,
                            .confidence = options.confidence},
                           options.seed);
  const std::string name = campaign_of(options, host, effort);
  resume(campaign, options, name, globals);
  const auto keep = [&]() -> Status {
    if (options.state.empty()) return Done{};
    return calib::save_state({name, campaign.done(), campaign.measured()}, options.state);
  };
  ProgressLine line(globals, true);
  const Clock::time_point started = Clock::now();
  const uint64_t began_at = campaign.done();
  Clock::time_point kept = started - kKeepEvery;  // the first chunk is kept at once
  while (!campaign.finished() && !stop) {
    show_progress(line, campaign, began_at, started);
    if (Status s = campaign.next(); !s.ok()) return s.error();
    if (Clock::now() - kept < kKeepEvery) continue;
    kept = Clock::now();
    if (Status s = keep(); !s.ok()) return s.error();
  }
  line.clear();
  if (!campaign.finished())
    if (Status s = keep(); !s.ok()) return s.error();
  auto calibration = calib::analyse(
      campaign.measured(),
      {.overshoot_probability = options.overshoot_probability, .confidence = options.confidence});
  if (!calibration)
    return UserError{.id = "CAL-005",
                     .exit_code = ExitCode::kStoppedAtLimit,
                     .what = "stopped before there was anything to say",
                     .seen = fmt::format("step {} of {}", campaign.done(), campaign.total()),
                     .needed = "skid measured at least in part",
                     .mend = options.state.empty()
                                 ? "measure again; with -o FILE what was measured is kept"
                                 : "the same command goes on where this one was stopped"};
  Measured out{.calibration = std::move(*calibration),
               .measurements = campaign.measured(),
               .complete = campaign.finished(),
               .done = campaign.done(),
               .total = campaign.total()};
  out.profile =
      calib::profile_of(out.calibration, out.measurements, *host.host, host.model, today());
  return out;
}

}  // namespace us::tools
