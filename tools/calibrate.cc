// `understudy calibrate`: measures a host and writes its profile.
#include "tools/calibrate.h"

#include <cstdio>
#include <filesystem>

#include "calib/plot.h"
#include "calib/report.h"
#include "tools/session.h"
#include "tools/talk.h"

namespace us::tools {
namespace {

calib::Effort effort_of(const CalibrateOptions& options) {
  if (options.quick) return calib::Effort::kQuick;
  return options.thorough ? calib::Effort::kThorough : calib::Effort::kNormal;
}

Status keep_results(const CalibrateOptions& options, const Measured& measured) {
  if (!options.plot.empty()) {
    const std::string svg =
        calib::plot(measured.calibration, measured.measurements, measured.profile);
    if (Status s = write_text(options.plot, svg); !s.ok()) return s;
  }
  if (options.out.empty() || !measured.complete) return Done{};
  if (Status s = pmu::save_profile(measured.profile, options.out); !s.ok()) return s;
  std::error_code gone;
  std::filesystem::remove(options.state, gone);
  return Done{};
}

// The last line, on stderr: what came of it and where it is.
void say_end(const CalibrateOptions& options, const Measured& m, const Globals& globals) {
  if (!m.complete) {
    fmt::print(stderr, "understudy: stopped after step {} of {}{}\n", m.done, m.total,
               options.state.empty()
                   ? ""
                   : "; kept in " + options.state + ": the same command goes on from there");
    return;
  }
  if (globals.quiet) return;
  fmt::print(stderr, "understudy: measured, margin {} branches{}{}\n", m.profile.margin,
             options.out.empty() ? "" : "; profile in " + options.out,
             options.plot.empty() ? "" : "; charts in " + options.plot);
}

Result<int> calibrate(const CalibrateOptions& options, const Globals& globals) {
  SignalWatch signals;
  std::atomic<bool> stop{false};
  auto host = open_measured(options);
  if (!host.ok()) return host.error();
  signals.on_stop([&stop] { stop = true; });
  auto measured = measure(options, *host, effort_of(options), stop, globals);
  signals.on_stop({});
  if (!measured.ok()) return measured.error();
  const calib::Calibration& c = measured->calibration;
  if (options.json) {
    fmt::print("{}\n", calib::report_json(c, measured->measurements, measured->profile,
                                          options.backend, measured->complete)
                           .dump(2));
  } else {
    fmt::print(
        "{}", calib::report_text(c, measured->measurements, measured->profile, measured->complete));
  }
  if (const int code = finish_output(); code != 0) return code;
  if (Status s = keep_results(options, *measured); !s.ok()) return s.error();
  say_end(options, *measured, globals);
  return static_cast<int>(measured->complete ? ExitCode::kDone : ExitCode::kStoppedAtLimit);
}

// With --json a host that cannot be measured is a document, too.
int refused(const UserError& error, const CalibrateOptions& options) {
  if (options.json)
    fmt::print("{}\n", nlohmann::json{{"schema", calib::kCalibrationSchema},
                                      {"backend", options.backend},
                                      {"complete", false},
                                      {"error",
                                       {{"id", error.id},
                                        {"what", error.what},
                                        {"seen", error.seen},
                                        {"needed", error.needed},
                                        {"mend", error.mend}}}}
                           .dump(2));
  return report(error);
}

void add_options(CLI::App& verb, CalibrateOptions& options) {
  verb.add_option("--backend", options.backend,
                  "what to measure: perf (this host's counter, in user mode), kvm (the same, of a "
                  "guest), soft (the modelled one)")
      ->check(CLI::IsMember({"perf", "soft", "kvm"}));
  verb.add_option("-o,--out", options.out,
                  "the profile (TOML) to write; FILE.state keeps what is measured until then");
  verb.add_flag("--json", options.json, "one JSON document instead of a table");
  verb.add_option("--plot", options.plot, "draw skid, exactness and landing cost into this SVG");
  CLI::Option* quick = verb.add_flag("--quick", options.quick, "seconds instead of minutes");
  verb.add_flag("--thorough", options.thorough, "ten times as much of everything")->excludes(quick);
  verb.add_option("--seed", options.seed, "of all that is drawn (1)");
  verb.add_option("--overshoot", options.overshoot_probability,
                  "how often a landing may overshoot, as a probability (1e-6)")
      ->check(CLI::Range(1e-12, 0.1));
  verb.add_option("--confidence", options.confidence, "of all that is stated (0.99)")
      ->check(CLI::Range(0.5, 0.9999));
  verb.add_option("--pmu-profile", options.pmu_profile,
                  "soft: host profile whose [model] is the counter to measure");
  add_backend_options(verb, options.guest);
  verb.add_option("--skid", options.skid, "soft: skid of the counter, as in a profile's [model]");
}

}  // namespace

void add_calibrate(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<CalibrateOptions>();
  CLI::App* verb =
      app.add_subcommand("calibrate", "measure a host's branch counter and write its profile");
  verb->require_subcommand(0, 1);
  add_options(*verb, *options);
  add_calibrate_compare(*verb, exit_code);
  add_calibrate_check(*verb, globals, exit_code);
  verb->callback([options, verb, &globals, &exit_code] {
    if (!verb->get_subcommands().empty()) return;
    if (!options->out.empty()) options->state = options->out + ".state";
    const auto result = calibrate(*options, globals);
    exit_code = result.ok() ? *result : refused(result.error(), *options);
  });
}

}  // namespace us::tools
