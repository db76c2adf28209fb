// `understudy replay`: the recorded machine again, its inputs from the log, its outputs compared
// and dropped, except for the console's, which is shown.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <unistd.h>

#include "logchannel/log_reader.h"
#include "tools/backend.h"
#include "tools/executor_option.h"
#include "tools/host_profile.h"
#include "tools/image_reader.h"
#include "tools/ipt_options.h"
#include "tools/progress.h"
#include "tools/recording.h"
#include "tools/saved_replay.h"
#include "tools/session.h"
#include "tools/stats.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct ReplayOptions {
  IptOptions ipt;
  std::string folder, stats, pmu_profile, executor;
  BackendChoice here;  // what options say of it
  std::vector<std::string> images;
  PlaceOptions place;
};

// Console text to stdout; frames and disk requests have no world to go to. A line of progress on
// the same terminal makes way, and comes back once the guest has ended its own.
class ReplaySink final : public hv::OutputSink {
 public:
  explicit ReplaySink(ProgressLine& line) : line_(line) {}
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan bytes) override {
    if (on_terminal_) line_.clear();
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    // Whoever reads along gets each line when the guest writes it.
    if (std::find(bytes.begin(), bytes.end(), '\n') != bytes.end()) flush();
    if (on_terminal_ && !bytes.empty()) line_.hold(bytes.back() != '\n');
  }
  void flush() { std::fflush(stdout); }

 private:
  ProgressLine& line_;
  const bool on_terminal_ = ::isatty(STDOUT_FILENO) == 1;
};

struct Replayed {
  replay::EndOfInputs end;
  uint64_t verified_epochs = 0;
  uint64_t records = 0;
  replay::WitnessCounters traced;
  replay::LandingCounters landings;
  std::optional<Digest> recorded_digest;
  Digest final_digest;
  replay::Bookmark here;
  bool at_place = false;  // of --goto
};

// What a replay works with besides its machine.
struct ReplayParts {
  log::LogReader& log;
  std::optional<log::Record> first;
  pmu::HostProfile profile;
  ImageReader images;
  std::optional<replay::Bookmark> from;  // where the machine was saved, not booted
  ProgressLine& line;
  uint64_t log_bytes = 0;  // of the whole recording
  replay::Witness* witness = nullptr;
};

// From the last input before the place of --goto, the rest of the way has none.
void go_to_place(hv::Machine& machine, replay::Lander& lander, Branches place, Replayed& result) {
  const replay::LandingResult landing = lander.go_to(machine, place);
  result.at_place = landing.ok();
  if (!landing.ok()) result.end = landing.end();
}

// Where the replay stands now, for another to go on from.
replay::Bookmark bookmark_of(const hv::Machine& machine, const ReplayParts& parts,
                             const replay::LogSource& source, const replay::Verifier& verifier) {
  replay::Bookmark here = parts.from.value_or(replay::Bookmark{});
  here.recording = parts.log.manifest().id;
  here.records += source.records();
  if (source.records() != 0) here.position = source.position();
  here.point = machine.point();
  here.last_agreeing = verifier.last_agreeing();
  return here;
}

Replayed run_log(hv::Machine& machine, ReplayParts& parts, const ReplayOptions& options) {
  replay::LogSource source(
      parts.log, std::move(parts.first),
      [&parts](uint8_t device, uint64_t offset, uint64_t length, uint32_t crc) {
        return parts.images.read(device, offset, length, crc);
      });
  const auto place = options.place.place();
  if (place) source.stop_at(*place);
  replay::Verifier verifier(parts.witness);
  if (parts.from) verifier.go_on_from(parts.from->last_agreeing);
  ProgressObserver observer(
      "replay", verifier, parts.line,
      [&parts]() -> std::optional<double> {
        return static_cast<double>(parts.log.bytes()) / static_cast<double>(parts.log_bytes);
      },
      "the log");
  replay::Lander lander(replay::landing_profile(parts.profile, machine));
  Replayed result;
  SignalWatch signals;
  signals.on_stop([&source] { source.request_stop(); });
  result.end = replay::run_loop(machine, source, lander, &observer);
  signals.on_stop({});
  if (source.stopped_at_place()) go_to_place(machine, lander, *place, result);
  result.here = bookmark_of(machine, parts, source, verifier);
  result.verified_epochs = verifier.verified_epochs();
  result.records = source.records();
  result.traced = verifier.traced();
  result.landings = lander.counters();
  if (result.end.kind == replay::EndKind::kDiverged)
    result.end.detail += "\n  counter:         " + lander.health_text();
  result.final_digest = machine.whole_digest();
  if (source.end_record())
    result.recorded_digest = std::get<log::End>(source.end_record()->body).final_digest;
  return result;
}

void compare_final(Replayed& r) {
  const bool at_end = r.recorded_digest && r.end.kind != replay::EndKind::kDiverged && !r.end.error;
  if (!at_end || *r.recorded_digest == r.final_digest) return;
  r.end = {replay::EndKind::kDiverged, fmt::format("the final digest is {}, recorded was {}",
                                                   r.final_digest.hex(), r.recorded_digest->hex())};
}

// A recording that ended at a limit or by Ctrl-C was replayed whole: that is success here.
Outcome replay_outcome(const Replayed& r) {
  Outcome outcome = outcome_of(r.end);
  if (r.recorded_digest && outcome.code == ExitCode::kStoppedAtLimit)
    outcome.code = ExitCode::kDone;
  if (r.recorded_digest && outcome.code == ExitCode::kDone)
    outcome.text = fmt::format("replayed to its end ({}), {} epochs verified, final digest {}",
                               outcome.text, r.verified_epochs, r.final_digest.hex());
  return outcome;
}

// A recording replays on the backend that made it: where the architecture leaves results open, the
// two kinds of processor differ.
BackendChoice backend_of(const ReplayOptions& options, const RecordedVm& recorded) {
  BackendChoice choice = options.here;
  choice.name = recorded.config.backend.name;
  choice.cooperative = recorded.config.backend.cooperative;
  return choice;
}

// Images as named now, else where they were when the recording was made.
ImageReader images_of(const ReplayOptions& options, const RecordedVm& recorded) {
  std::vector<std::string> paths = options.images;
  for (size_t i = paths.size(); i < recorded.config.disks.size(); ++i)
    paths.push_back(recorded.config.disks[i].path);
  return ImageReader(std::move(paths));
}

nlohmann::json stats_of(const Replayed& result, const Outcome& outcome, const log::LogReader& log,
                        nlohmann::json stats) {
  stats["log_bytes"] = log.bytes();
  stats["records"] = log.records();
  stats["landings"] = result.landings.landings;
  stats["landing_steps_max"] = result.landings.steps_max;
  stats["landing_steps"] = result.landings.steps;
  stats["landing_overshoots"] = result.landings.overshoots;
  stats["landing_skid_max"] = result.landings.skid_max;
  stats["landing_alarms_lost"] = result.landings.alarms_lost;
  stats["epochs"] = result.verified_epochs;
  stats["verified_epochs"] = result.verified_epochs;
  stats["divergences"] = outcome.code == ExitCode::kDivergence ? 1 : 0;
  stats["final_digest"] = result.final_digest.hex();
  return stats;
}

// A divergence is there to be looked into: the recording, and what it was replayed with, say all
// that is needed.
std::string where_to_look(const ReplayOptions& options, const Replayed& result,
                          const Outcome& outcome) {
  if (result.at_place && !options.place.save_to().empty())
    return "saved to " + options.place.save_to();
  if (outcome.code != ExitCode::kDivergence) return "";
  std::string command = "look into it with `understudy diverge " + options.folder;
  if (!options.pmu_profile.empty()) command += " --pmu-profile " + options.pmu_profile;
  for (const std::string& image : options.images) command += " --image " + image;
  return command + "`";
}

// A recording killed before it had described its machine: nothing to replay, and no damage.
bool ended_early(const replay::LogOpening& opening, const log::LogReader& log) {
  return !opening.first && opening.sections.count("boot") == 0 && log.end().ended &&
         !log.end().complete;
}

// Booted, or restored where it was saved, with the log there too.
Result<std::unique_ptr<hv::Machine>> machine_at_start(const RecordedVm& recorded,
                                                      std::optional<SavedReplay>& saved,
                                                      log::LogReader& log,
                                                      std::optional<log::Record>& first,
                                                      hv::OutputSink& sink) {
  if (saved) {
    if (const Status s = replay::skip_to(saved->bookmark(), log, first); !s.ok()) return s.error();
    return saved->restore(recorded.machine, sink);
  }
  auto made = hv::Machine::create(recorded.machine, sink);
  if (!made.ok()) return made.error();
  if (const Status s = (*made)->boot(recorded.boot); !s.ok()) return s.error();
  return made;
}

// What --save asks for; a replay that went past the place, or stopped before it, has nothing to
// keep. An error it ended with says more than that.
Status save(const ReplayOptions& options, const Replayed& result, const Outcome& outcome,
            hv::Machine& machine) {
  const std::string& path = options.place.save_to();
  if (path.empty()) return Done{};
  if (result.at_place) return save_replay(path, result.here, machine);
  if (outcome.code != ExitCode::kDone && outcome.code != ExitCode::kStoppedAtLimit) return Done{};
  return UserError{
      .id = "SNAP-008",
      .exit_code = ExitCode::kUsage,
      .what = fmt::format("nothing was saved to {}", path),
      .seen = fmt::format("the replay ended at branch {}: {}", machine.point().branches.value,
                          outcome.text),
      .needed = fmt::format("a replay that comes to branch {}", options.place.place()->value),
      .mend =
          "a place within the recording (`understudy log info DIR` says how far it goes), and no "
          "Ctrl-C on the way"};
}

Result<int> replay(const ReplayOptions& options, const Globals& globals) {
  auto reader = log::LogReader::open(options.folder);
  if (!reader.ok()) return reader.error();
  auto opening = replay::read_opening(**reader);
  if (!opening.ok()) return opening.error();
  if (ended_early(*opening, **reader))
    return finish(globals,
                  {ExitCode::kStoppedAtLimit,
                   "the log ends before its machine is described, "
                   "nothing to replay: " +
                       (*reader)->end().reason},
                  {}, "");
  auto recorded = read_description(options.folder, opening->sections);
  if (!recorded.ok()) return recorded.error();
  BackendChoice backend = backend_of(options, *recorded);
  if (const Status s = use_backend(backend); !s.ok()) return s.error();
  auto profile = profile_to_replay_with(options.pmu_profile, recorded->profile, backend);
  if (!profile.ok()) return profile.error();
  auto saved = options.place.open((*reader)->manifest().id);
  if (!saved.ok()) return saved.error();

  ProgressLine line(globals, true);
  ReplaySink sink(line);
  auto made = machine_at_start(*recorded, *saved, **reader, opening->first, sink);
  if (!made.ok()) return made.error();
  hv::Machine& machine = **made;

  auto tracing = options.ipt.start(machine, recorded->config.ipt_check);
  if (!tracing.ok()) return tracing.error();
  const auto started = std::chrono::steady_clock::now();
  ReplayParts parts{.log = **reader,
                    .first = std::move(opening->first),
                    .profile = std::move(*profile),
                    .images = images_of(options, *recorded),
                    .from = *saved ? std::optional((*saved)->bookmark()) : std::nullopt,
                    .line = line,
                    .log_bytes = recording_bytes(options.folder),
                    .witness = tracing->witness.get()};
  Replayed result = run_log(machine, parts, options);
  line.clear();
  sink.flush();
  compare_final(result);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
  const Status traced = tracing->finish();
  const Outcome outcome = replay_outcome(result);
  if (result.end.error) report(*result.end.error);
  if (!options.stats.empty()) {
    auto stats = stats_of(result, outcome, **reader, run_stats(machine, outcome, wall.count()));
    if (tracing->witness) add_traced(stats, result.traced, *tracing->witness);
    if (const Status s = write_text(options.stats, stats.dump(2) + "\n"); !s.ok()) return s.error();
  }
  if (!traced.ok()) return traced.error();
  if (const Status s = save(options, result, outcome, machine); !s.ok()) return s.error();
  return finish(globals, outcome, machine.point(), where_to_look(options, result, outcome));
}

}  // namespace

void add_replay(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<ReplayOptions>();
  CLI::App* verb =
      app.add_subcommand("replay", "replay a recording and verify it against its digests");
  verb->add_option("recording", options->folder, "directory of the recording")->required();
  options->ipt.add_to(*verb);
  add_executor_option(*verb, options->executor);
  verb->add_option("--stats", options->stats, "write statistics (JSON) to this file at the end");
  options->place.add_to(*verb);
  add_backend_options(*verb, options->here);
  verb->add_option("--pmu-profile", options->pmu_profile,
                   "host profile (TOML): margin, minimum period, and the counter to model");
  verb->add_option("--image", options->images,
                   "disk images, in order, for recordings that left disk data in them; else those "
                   "recorded")
      ->take_all();
  verb->callback([options, &globals, &exit_code] {
    use_executor(options->executor, "auto");
    const auto result = replay(*options, globals);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

}  // namespace us::tools
