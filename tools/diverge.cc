// `understudy diverge`: where and why two executions part.
#include "replay-engine/diverge/diverge.h"

#include <cstdio>
#include <filesystem>

#include "tools/diverge_side.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct DivergeArguments {
  std::string a, b, bundle, pmu_profile;
  std::vector<std::string> images, plant;
  unsigned repeat = 2;
  uint64_t look_ahead = 50;
  bool json = false;
};

Result<std::vector<replay::Fault>> plan_of(const DivergeArguments& arguments) {
  std::vector<replay::Fault> plan;
  for (const std::string& text : arguments.plant) {
    auto fault = replay::parse_fault(text);
    if (!fault.ok()) return fault.error();
    plan.push_back(*fault);
  }
  return plan;
}

int exit_code_of(const replay::DivergeReport& report) {
  switch (report.verdict) {
    case replay::DivergeVerdict::kEqual:
    case replay::DivergeVerdict::kUnknown: return static_cast<int>(ExitCode::kDone);
    case replay::DivergeVerdict::kDamaged:
      return static_cast<int>(report.error ? report.error->exit_code : ExitCode::kLogUnreadable);
    default: return static_cast<int>(ExitCode::kDivergence);
  }
}

UserError cannot_bundle(const std::string& folder, const std::string& seen) {
  return {.id = "DIV-002",
          .exit_code = ExitCode::kHostCannot,
          .what = "cannot write the bundle " + folder,
          .seen = seen,
          .needed = "a folder that can be made, and free space",
          .mend = "correct the path or free space"};
}

std::string text_of(const replay::LogContext& context) {
  std::string text;
  for (size_t i = 0; i < context.lines.size(); ++i)
    text += (context.marked == i ? "> " : "  ") + context.lines[i] + "\n";
  return text;
}

// Everything but memory: a guest's may hold secrets.
Status write_bundle(const std::string& folder, const replay::DivergeReport& report) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return cannot_bundle(folder, failed.message());
  const std::pair<const char*, std::string> files[] = {
      {"report.txt", replay::to_text(report)},
      {"report.json", replay::to_json(report).dump(2) + "\n"},
      {"log-a.txt", text_of(report.log_a)},
      {"log-b.txt", text_of(report.log_b)}};
  for (const auto& [name, text] : files)
    if (const Status s = write_text(folder + "/" + name, text); !s.ok())
      return cannot_bundle(folder, s.error().what + ": " + s.error().seen);
  return Done{};
}

Result<replay::DivergeReport> compare(const RecordedSide& a, std::optional<RecordedSide>& b,
                                      const replay::DivergeOptions& options) {
  if (b) return replay::compare_sides(a.side, b->side, options);
  return replay::compare_with_itself(a.side, options);
}

Result<int> diverge(const DivergeArguments& arguments, const Globals& globals) {
  auto plan = plan_of(arguments);
  if (!plan.ok()) return plan.error();
  SideOptions options{.folder = arguments.a, .images = arguments.images};
  if (arguments.b.empty()) options.pmu_profile = arguments.pmu_profile;
  auto a = open_side("a", options);
  if (!a.ok()) return a.error();
  std::optional<RecordedSide> b;
  if (!arguments.b.empty() || !plan->empty()) {
    options.folder = arguments.b.empty() ? arguments.a : arguments.b;
    options.pmu_profile = arguments.pmu_profile;
    auto opened = open_side("b", options);
    if (!opened.ok()) return opened.error();
    b = std::move(opened).value();
    b->side.plan = std::move(plan).value();
    if (const Status s = check_comparable(*a, *b); !s.ok()) return s.error();
  }
  ProgressLine line(globals, true);
  std::atomic<bool> stop{false};
  SignalWatch signals;
  signals.on_stop([&stop] { stop = true; });
  auto report = compare(*a, b,
                        {.repeat = arguments.repeat,
                         .look_ahead_epochs = arguments.look_ahead,
                         .stop = &stop,
                         .progress = [&](const std::string& what, const hv::ExecutionPoint& at) {
                           if (line.due())
                             line.show(fmt::format("diverge: {}, branch {}, instruction {}", what,
                                                   at.branches.value, at.instructions.value));
                         }});
  signals.on_stop({});
  line.clear();
  if (!report.ok()) return report.error();
  report->environment = environment_of(*a, b ? &*b : nullptr);
  replay::rank_causes(*report);
  fmt::print("{}",
             arguments.json ? replay::to_json(*report).dump(2) + "\n" : replay::to_text(*report));
  if (const int code = finish_output(); code != 0) return code;
  if (!arguments.bundle.empty())
    if (const Status s = write_bundle(arguments.bundle, *report); !s.ok()) return s.error();
  if (!globals.quiet)
    fmt::print(stderr, "understudy: {}{}\n", report->headline,
               arguments.bundle.empty() ? "" : "; bundle in " + arguments.bundle);
  return exit_code_of(*report);
}

}  // namespace

void add_diverge(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<DivergeArguments>();
  CLI::App* verb = app.add_subcommand("diverge", "where and why two executions part");
  verb->add_option("a", options->a, "directory of a recording")->required();
  verb->add_option("b", options->b,
                   "directory of another recording of the same VM; none: A "
                   "against its own execution here");
  verb->add_flag("--json", options->json, "JSON instead of text");
  verb->add_option("--bundle", options->bundle, "write everything found into this directory too");
  verb->add_option("--repeat", options->repeat, "execute the differing epoch again so many times")
      ->check(CLI::Range(0, 1000));
  verb->add_option("--look-ahead", options->look_ahead,
                   "epochs after the first difference to look for where the paths part");
  verb->add_option("--pmu-profile", options->pmu_profile,
                   "host profile (TOML) of the counter that the last named side lands with");
  verb->add_option("--image", options->images,
                   "disk images, in order, for recordings that left disk data in them")
      ->take_all();
  verb->add_option("--plant", options->plant,
                   "for drills: a fault for the last named side, such as flip@1000000:0x200000:3; "
                   "see understudy-diverge(1)")
      ->take_all();
  verb->callback([options, &globals, &exit_code] {
    const auto result = diverge(*options, globals);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

}  // namespace us::tools
