// `understudy diverge`: where and why two executions part.
#include "replay-engine/diverge/diverge.h"

#include <cstdio>
#include <filesystem>
#include <sys/ioctl.h>
#include <unistd.h>

#include "replay-engine/diverge/timeline.h"
#include "tools/diverge_side.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct DivergeArguments {
  std::string a, b, bundle, perfetto, symbols, pmu_profile;
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

constexpr size_t kBundleColumns = 120;

// The terminal's width, or what is usual.
size_t columns() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) return size.ws_col;
  return 80;
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
Status write_bundle(const std::string& folder, const replay::DivergeReport& report,
                    const std::vector<replay::Timeline>& timelines) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return cannot_bundle(folder, failed.message());
  const std::pair<const char*, std::string> files[] = {
      {"report.txt", replay::to_text(report)},
      {"report.json", replay::to_json(report).dump(2) + "\n"},
      {"timeline.txt", replay::timeline_text(timelines, report, kBundleColumns)},
      {"perfetto.json", replay::timeline_json(timelines, report).dump() + "\n"},
      {"log-a.txt", text_of(report.log_a)},
      {"log-b.txt", text_of(report.log_b)}};
  for (const auto& [name, text] : files)
    if (const Status s = write_text(folder + "/" + name, text); !s.ok())
      return cannot_bundle(folder, s.error().what + ": " + s.error().seen);
  return Done{};
}

struct Sides {
  RecordedSide a;
  std::optional<RecordedSide> b;  // none: a against its own execution
};

// The last named side gets the profile and the faults; a recording alone is both sides of a drill.
Result<Sides> open_sides(const DivergeArguments& arguments) {
  auto plan = plan_of(arguments);
  if (!plan.ok()) return plan.error();
  const bool two = !arguments.b.empty() || !plan->empty();
  SideOptions options{.folder = arguments.a, .images = arguments.images};
  if (!two) options.pmu_profile = arguments.pmu_profile;
  auto a = open_side("a", options);
  if (!a.ok()) return a.error();
  Sides sides{.a = std::move(a).value()};
  if (!two) return sides;
  options.folder = arguments.b.empty() ? arguments.a : arguments.b;
  options.pmu_profile = arguments.pmu_profile;
  auto b = open_side("b", options);
  if (!b.ok()) return b.error();
  sides.b = std::move(b).value();
  sides.b->side.plan = std::move(plan).value();
  if (const Status s = check_comparable(sides.a, *sides.b); !s.ok()) return s.error();
  return sides;
}

// On a terminal how far it is; Ctrl-C ends it with what is known by then.
Result<replay::DivergeReport> compare(const Sides& sides, const DivergeArguments& arguments,
                                      const Globals& globals) {
  ProgressLine line(globals, true);
  std::atomic<bool> stop{false};
  SignalWatch signals;
  signals.on_stop([&stop] { stop = true; });
  replay::DivergeOptions options{
      .repeat = arguments.repeat, .look_ahead_epochs = arguments.look_ahead, .stop = &stop};
  options.progress = [&line](const std::string& what, const hv::ExecutionPoint& at) {
    if (line.due())
      line.show(fmt::format("diverge: {}, branch {}, instruction {}", what, at.branches.value,
                            at.instructions.value));
  };
  if (!arguments.symbols.empty()) {
    auto symbols = replay::Symbols::load(arguments.symbols);
    if (!symbols.ok()) return symbols.error();
    options.symbols = std::make_shared<const replay::Symbols>(std::move(symbols).value());
  }
  auto report = sides.b ? replay::compare_sides(sides.a.side, sides.b->side, options)
                        : replay::compare_with_itself(sides.a.side, options);
  signals.on_stop({});
  if (!report.ok()) return report.error();
  report->environment = environment_of(sides.a, sides.b ? &*sides.b : nullptr);
  replay::rank_causes(*report);
  return report;
}

Result<std::vector<replay::Timeline>> timelines_of(const Sides& sides) {
  std::vector<replay::Timeline> timelines;
  for (const RecordedSide* side : {&sides.a, sides.b ? &*sides.b : nullptr}) {
    if (side == nullptr) continue;
    auto timeline = replay::read_timeline(side->side);
    if (!timeline.ok()) return timeline.error();
    timelines.push_back(std::move(timeline).value());
  }
  return timelines;
}

Result<int> diverge(const DivergeArguments& arguments, const Globals& globals) {
  const auto sides = open_sides(arguments);
  if (!sides.ok()) return sides.error();
  const auto report = compare(*sides, arguments, globals);
  if (!report.ok()) return report.error();
  const auto timelines = timelines_of(*sides);
  if (!timelines.ok()) return timelines.error();
  if (arguments.json) {
    fmt::print("{}\n", replay::to_json(*report).dump(2));
  } else {
    fmt::print("{}\nTimeline: {}", replay::to_text(*report),
               replay::timeline_text(*timelines, *report, columns()));
  }
  if (const int code = finish_output(); code != 0) return code;
  if (!arguments.perfetto.empty()) {
    const auto events = replay::timeline_json(*timelines, *report);
    if (const Status s = write_text(arguments.perfetto, events.dump() + "\n"); !s.ok())
      return s.error();
  }
  if (!arguments.bundle.empty())
    if (const Status s = write_bundle(arguments.bundle, *report, *timelines); !s.ok())
      return s.error();
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
  verb->add_option("--perfetto", options->perfetto,
                   "write a timeline of both sides (trace-event JSON) for ui.perfetto.dev");
  verb->add_option("--symbols", options->symbols,
                   "System.map of the guest's kernel; none: what the guest's own kallsyms say");
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
