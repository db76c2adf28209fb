// `understudy run`: the machine and its live world, nothing recorded.
#include <chrono>

#include "tools/ipt_options.h"
#include "tools/session.h"
#include "tools/stats.h"
#include "tools/talk.h"
#include "tools/verbs.h"
#include "tools/vm_options.h"

namespace us::tools {
namespace {

struct RunOptions {
  VmOptions vm;
  IptOptions ipt;
  std::string stats;
  double time_limit_seconds = 0;
};

Result<int> run(const RunOptions& options, const Globals& globals) {
  auto config = options.vm.resolve();
  if (!config.ok()) return config.error();
  if (const auto found = check_vm_config(*config); !found.empty()) return found.front();
  if (const Status s = use_backend(config->backend); !s.ok()) return s.error();
  SignalWatch signals;
  auto live = LiveWorld::open(*config);
  if (!live.ok()) return live.error();
  LateSink sink;
  sink.set(&(*live)->world());
  auto made = hv::Machine::create(machine_config(*config, (*live)->world().disk_sizes()), sink);
  if (!made.ok()) return made.error();
  hv::Machine& machine = **made;
  const Status booted = machine.boot(
      {.kernel = config->kernel, .initrd = config->initrd, .cmdline = config->cmdline});
  if (!booted.ok()) return booted.error();
  auto tracing = options.ipt.start(machine, false);
  if (!tracing.ok()) return tracing.error();

  replay::LiveOptions live_options{.epoch_length = std::chrono::nanoseconds(0)};
  if (options.time_limit_seconds > 0)
    live_options.time_limit =
        std::chrono::nanoseconds(static_cast<int64_t>(options.time_limit_seconds * 1e9));
  const auto started = std::chrono::steady_clock::now();
  const replay::EndOfInputs end = run_live(**live, machine, live_options, nullptr, signals);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
  const Outcome outcome = outcome_of(end);
  (*live)->world().stop();
  if (const Status traced = tracing->finish(); !traced.ok()) return traced.error();
  remark(globals, machine);
  if (outcome.code == ExitCode::kGuestFailed) fmt::print(stderr, "{}", machine.dump());
  if (!options.stats.empty()) {
    const auto stats = run_stats(machine, outcome, wall.count());
    if (const Status s = write_text(options.stats, stats.dump(2) + "\n"); !s.ok()) return s.error();
  }
  return finish(globals, outcome, machine.point(), "");
}

}  // namespace

void add_run(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* verb = app.add_subcommand("run", "run a VM; its serial console is on stdin and stdout");
  options->vm.add_to(*verb);
  options->ipt.add_to(*verb, {.check = false});
  verb->add_option("--stats", options->stats, "write statistics (JSON) to this file at the end");
  verb->add_option("--time-limit", options->time_limit_seconds,
                   "stop after this many seconds of host time (exit 7)");
  verb->callback([options, &globals, &exit_code] {
    const auto result = run(*options, globals);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

}  // namespace us::tools
