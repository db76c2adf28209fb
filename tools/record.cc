// `understudy record`: a live run whose inputs go into a log.
#include <chrono>
#include <filesystem>
#include <unistd.h>

#include "hv/machine_config.h"
#include "logchannel/log_writer.h"
#include "tools/host_profile.h"
#include "tools/ipt_options.h"
#include "tools/progress.h"
#include "tools/recording.h"
#include "tools/session.h"
#include "tools/stats.h"
#include "tools/talk.h"
#include "tools/verbs.h"
#include "tools/vm_options.h"

namespace us::tools {
namespace {

struct RecordOptions {
  VmOptions vm;
  IptOptions ipt;
  std::string folder, stats, size_max, pmu_profile;
  double time_limit_seconds = 0;
  double epoch_ms = 10;
};

Bytes to_bytes(const std::string& text) { return {text.begin(), text.end()}; }

// The options over the description; paths absolute, so that the recording can be replayed from
// elsewhere.
Result<VmConfig> resolve(const RecordOptions& options) {
  auto config = options.vm.resolve();
  if (!config.ok()) return config;
  if (!options.pmu_profile.empty()) config->pmu_profile = options.pmu_profile;
  config->ipt_check = options.ipt.check(config->ipt_check);
  for (VmDisk& disk : config->disks) disk.path = std::filesystem::absolute(disk.path).string();
  if (const auto found = check_vm_config(*config); !found.empty()) return found.front();
  return config;
}

// The machine's description, so that the log says everything replay needs but the files beside it.
Status describe(replay::Recorder& recorder, const RecordOptions& options, const VmConfig& config,
                const hv::MachineConfig& machine, const std::optional<pmu::HostProfile>& profile) {
  auto boot = keep_boot_files(options.folder, config);
  if (!boot.ok()) return boot.error();
  ByteWriter machine_bytes;
  hv::encode(machine, machine_bytes);
  recorder.add_section("vm", to_bytes(to_toml(config)));
  recorder.add_section("machine", machine_bytes.bytes());
  recorder.add_section("boot", *boot);
  recorder.add_section("host", host_section(config.backend.name));
  if (profile) recorder.add_section("pmu", to_bytes(pmu::to_toml(*profile)));
  return Done{};
}

replay::LiveOptions live_options(const RecordOptions& options) {
  replay::LiveOptions live;
  live.epoch_length = std::chrono::nanoseconds(static_cast<int64_t>(options.epoch_ms * 1e6));
  if (options.time_limit_seconds > 0)
    live.time_limit =
        std::chrono::nanoseconds(static_cast<int64_t>(options.time_limit_seconds * 1e9));
  return live;
}

// How much of a run with a limit is done; of one without, nobody knows.
std::function<std::optional<double>()> part_done(const RecordOptions& options,
                                                 const log::LogWriter& log, uint64_t bytes_max) {
  const auto started = std::chrono::steady_clock::now();
  return [&options, &log, bytes_max, started]() -> std::optional<double> {
    std::optional<double> done;
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - started;
    if (options.time_limit_seconds > 0) done = passed.count() / options.time_limit_seconds;
    if (bytes_max > 0)
      done = std::max(done.value_or(0),
                      static_cast<double>(log.bytes_written()) / static_cast<double>(bytes_max));
    return done;
  };
}

Result<int> record(const RecordOptions& options, const Globals& globals) {
  auto config = resolve(options);
  if (!config.ok()) return config.error();
  if (const Status s = use_backend(config->backend); !s.ok()) return s.error();
  auto profile = load_fit_profile(config->pmu_profile, config->backend);
  if (!profile.ok()) return profile.error();
  log::LogWriterOptions writer_options;
  if (!options.size_max.empty()) {
    const auto bytes = parse_size(options.size_max, "--size-limit");
    if (!bytes.ok()) return bytes.error();
    writer_options.bytes_max = *bytes;
  }
  SignalWatch signals;
  auto live = LiveWorld::open(*config, {.image_offsets = true});
  if (!live.ok()) return live.error();
  const hv::MachineConfig machine_wanted = machine_config(*config, (*live)->world().disk_sizes());
  LateSink sink;
  sink.set(&(*live)->world());
  auto made = hv::Machine::create(machine_wanted, sink);
  if (!made.ok()) return made.error();
  hv::Machine& machine = **made;
  const Status booted = machine.boot(
      {.kernel = config->kernel, .initrd = config->initrd, .cmdline = config->cmdline});
  if (!booted.ok()) return booted.error();

  auto writer = log::LogWriter::create(options.folder, writer_options);
  if (!writer.ok()) return writer.error();
  log::LogWriter& log = **writer;
  auto tracing = options.ipt.start(machine, config->ipt_check);
  if (!tracing.ok()) return tracing.error();
  replay::Recorder recorder(
      log, [&log] { return log.limit_reached(); }, tracing->witness.get());
  if (Status s = describe(recorder, options, *config, machine_wanted, *profile); !s.ok())
    return s.error();
  if (Status s = log.flush(); !s.ok()) return s.error();
  // Where stdout is a terminal the guest's console is on it.
  ProgressLine line(globals, ::isatty(STDOUT_FILENO) == 0);
  ProgressObserver observer("record", recorder, line,
                            part_done(options, log, writer_options.bytes_max), "its limit");

  const auto started = std::chrono::steady_clock::now();
  const replay::EndOfInputs end =
      run_live(**live, machine, live_options(options), &observer, signals);
  line.clear();
  recorder.finish(machine, end);
  Status closed = log.close();
  if (Status traced = tracing->finish(); closed.ok() && !traced.ok()) closed = traced;
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
  (*live)->world().stop();
  remark(globals, machine);
  Outcome outcome = outcome_of(end);
  if (!closed.ok()) fmt::print(stderr, "{}\n", closed.error().text());
  if (!closed.ok() && outcome.code == ExitCode::kDone) outcome.code = ExitCode::kStoppedAtLimit;
  if (outcome.code == ExitCode::kGuestFailed) fmt::print(stderr, "{}", machine.dump());
  if (!options.stats.empty()) {
    auto stats = run_stats(machine, outcome, wall.count());
    stats["log_bytes"] = log.bytes_written();
    stats["records"] = log.records();
    stats["landings"] = 0;
    stats["epochs"] = recorder.epochs();
    if (tracing->witness) add_traced(stats, recorder.traced(), *tracing->witness);
    stats["final_digest"] = recorder.final_digest().hex();
    if (const Status s = write_text(options.stats, stats.dump(2) + "\n"); !s.ok()) return s.error();
  }
  return finish(globals, outcome, machine.point(),
                fmt::format("recording in {}, {} bytes of log; replay with `understudy replay {}`",
                            options.folder, log.bytes_written(), options.folder));
}

}  // namespace

void add_record(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<RecordOptions>();
  CLI::App* verb = app.add_subcommand("record", "run a VM and record it");
  options->vm.add_to(*verb);
  options->ipt.add_to(*verb);
  verb->add_option("-o,--output", options->folder, "directory of the recording (new or empty)")
      ->required();
  verb->add_option("--stats", options->stats, "write statistics (JSON) to this file at the end");
  verb->add_option("--time-limit", options->time_limit_seconds,
                   "stop after this many seconds of host time; the recording stays valid (exit 7)");
  verb->add_option("--size-limit", options->size_max,
                   "stop when the log is this long, e.g. 64M; the recording stays valid (exit 7)");
  verb->add_option("--epoch-ms", options->epoch_ms,
                   "guest time between two state digests, milliseconds; 0: none");
  verb->add_option("--pmu-profile", options->pmu_profile,
                   "host profile (TOML) to keep in the recording; replay models its counter");
  verb->callback([options, &globals, &exit_code] {
    const auto result = record(*options, globals);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

}  // namespace us::tools
