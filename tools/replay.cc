// `understudy replay`: the recorded machine again, its inputs from the log, its outputs compared
// and dropped, except for the console's, which is shown.
#include <chrono>
#include <cstdio>

#include "logchannel/log_reader.h"
#include "tools/recording.h"
#include "tools/session.h"
#include "tools/stats.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

struct ReplayOptions {
  std::string folder, stats;
  uint64_t goto_branches = 0;
  bool has_goto = false;
};

// Console text to stdout; frames and disk requests have no world to go to.
class ReplaySink final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan bytes) override {
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
  }
  void flush() { std::fflush(stdout); }

 private:
};

struct Replayed {
  replay::EndOfInputs end;
  uint64_t verified_epochs = 0;
  uint64_t records = 0;
  replay::LandingCounters landings;
  std::optional<Digest> recorded_digest;
  Digest final_digest;
};

Replayed run_log(hv::Machine& machine, log::LogStream& stream, std::optional<log::Record> first,
                 const ReplayOptions& options) {
  replay::LogSource source(stream, std::move(first));
  if (options.has_goto) source.stop_at(Branches(options.goto_branches));
  replay::Verifier verifier;
  replay::Lander lander;
  Replayed result;
  SignalWatch signals;
  signals.on_stop([&source] { source.request_stop(); });
  result.end = replay::run_loop(machine, source, lander, &verifier);
  signals.on_stop({});
  if (options.has_goto && result.end.kind == replay::EndKind::kStoppedByUser) {
    // From the last input before the point, the rest of the way has none.
    while (machine.point().branches.value < options.goto_branches &&
           machine.run({.alarm = Branches(options.goto_branches)}) ==
               hv::MachineStop::kTimersChanged) {
    }
  }
  result.verified_epochs = verifier.verified_epochs();
  result.records = source.records();
  result.landings = lander.counters();
  result.final_digest = machine.whole_digest();
  if (source.end_record())
    result.recorded_digest = std::get<log::End>(source.end_record()->body).final_digest;
  return result;
}

void compare_final(Replayed& r) {
  const bool at_end = r.recorded_digest && r.end.kind != replay::EndKind::kDiverged &&
                      r.end.kind != replay::EndKind::kOvershoot;
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

Result<int> replay(const ReplayOptions& options, const Globals& globals) {
  auto reader = log::LogReader::open(options.folder);
  if (!reader.ok()) return reader.error();
  auto opening = replay::read_opening(**reader);
  if (!opening.ok()) return opening.error();
  auto recorded = read_description(options.folder, opening->sections);
  if (!recorded.ok()) return recorded.error();

  ReplaySink sink;
  auto made = hv::Machine::create(recorded->machine, sink);
  if (!made.ok()) return made.error();
  hv::Machine& machine = **made;
  if (const Status s = machine.boot(recorded->boot); !s.ok()) return s.error();

  const auto started = std::chrono::steady_clock::now();
  Replayed result = run_log(machine, **reader, std::move(opening->first), options);
  sink.flush();
  compare_final(result);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
  const Outcome outcome = replay_outcome(result);
  if (!options.stats.empty()) {
    auto stats = run_stats(machine, outcome, wall.count());
    stats["log_bytes"] = (*reader)->bytes();
    stats["records"] = (*reader)->records();
    stats["landings"] = result.landings.landings;
    stats["landing_steps_max"] = result.landings.steps_max;
    stats["landing_steps"] = result.landings.steps;
    stats["landing_overshoots"] = result.landings.overshoots;
    stats["epochs"] = result.verified_epochs;
    stats["verified_epochs"] = result.verified_epochs;
    stats["divergences"] = outcome.code == ExitCode::kDivergence ? 1 : 0;
    stats["final_digest"] = result.final_digest.hex();
    if (const Status s = write_text(options.stats, stats.dump(2) + "\n"); !s.ok()) return s.error();
  }
  return finish(globals, outcome, machine.point(), "");
}

}  // namespace

void add_replay(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<ReplayOptions>();
  CLI::App* verb =
      app.add_subcommand("replay", "replay a recording and verify it against its digests");
  verb->add_option("recording", options->folder, "directory of the recording")->required();
  verb->add_option("--stats", options->stats, "write statistics (JSON) to this file at the end");
  CLI::Option* where =
      verb->add_option("--goto", options->goto_branches, "stop at this conditional branch count");
  verb->callback([options, where, &globals, &exit_code] {
    options->has_goto = where->count() > 0;
    const auto result = replay(*options, globals);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

}  // namespace us::tools
