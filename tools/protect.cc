// `understudy protect`: the VM runs here, as the primary of a pair.
#include <chrono>
#include <thread>

#include "tools/control/control.h"
#include "tools/ft_options.h"
#include "tools/stats.h"
#include "tools/talk.h"
#include "tools/verbs.h"
#include "tools/vm_options.h"

namespace us::tools {
namespace {

struct ProtectOptions {
  VmOptions vm;
  FtOptions ft;
  std::string secondary;
  bool new_generation = false;
};

UserError not_free(const std::string& arbiter, const replay::ArbiterState& state,
                   const std::string& node) {
  return {.id = "FT-004",
          .exit_code = ExitCode::kRefusedToGoLive,
          .what = "this side must not start the VM",
          .seen = fmt::format("arbiter {}: generation {} belongs to {} and was not given back",
                              arbiter, state.generation, state.holder),
          .needed = fmt::format("a VM that runs nowhere, or that {} ran last", node),
          .mend =
              "if it runs there, start a `standby` here and `enable` it; only if you know that "
              "it runs nowhere, start it with --new-generation"};
}

// This node ran the VM last and did not give its generation back: it was killed, perhaps a moment
// ago. Its secondary, if it had one, has so long to notice and to claim the next generation; a boot
// that came first would throw away the state that the secondary holds.
Result<replay::ArbiterState> after_take_over(replay::Arbiter& arbiter,
                                             const replay::PairOptions& pair) {
  const auto patience = 4 * (pair.silence + pair.secondary_extra);
  fmt::print(
      stderr,
      "understudy: waiting: this side ran the VM last and did not end in order; its secondary "
      "gets {:.1f} s to take over\n",
      std::chrono::duration<double>(patience).count());
  const auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    auto state = arbiter.look();
    const bool decided = !state.ok() || state->holder != pair.node || state->released;
    if (decided || std::chrono::steady_clock::now() >= until) return state;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

// A generation of our own to run under.
Result<uint64_t> begin_generation(replay::Arbiter& arbiter, const replay::PairOptions& pair,
                                  bool new_generation) {
  const std::string& node = pair.node;
  auto state = arbiter.look();
  if (state.ok() && state->generation > 0 && !state->released && state->holder == node &&
      !new_generation)
    state = after_take_over(arbiter, pair);
  if (!state.ok()) return state.error();
  if (state->generation > 0 && !state->released && state->holder != node && !new_generation)
    return not_free(arbiter.text(), *state, node);
  const replay::Claim claim = arbiter.claim(state->generation + 1);
  if (claim.verdict == replay::ClaimVerdict::kWon) return state->generation + 1;
  if (claim.verdict == replay::ClaimVerdict::kLost)
    return not_free(arbiter.text(), {claim.generation, claim.holder, false}, node);
  return UserError{.id = "ARB-002",
                   .exit_code = ExitCode::kHostCannot,
                   .what = "the arbiter cannot be reached",
                   .seen = arbiter.text() + ": " + claim.detail,
                   .needed = "an arbiter that answers",
                   .mend = "mend its storage or service; both sides need it"};
}

Status write_stats(const std::string& path, hv::Machine& machine, const Outcome& outcome,
                   double wall_seconds, FtLive& ft) {
  if (path.empty()) return Done{};
  auto stats = run_stats(machine, outcome, wall_seconds);
  stats["ft"] = to_json(ft.status());
  return write_text(path, stats.dump(2) + "\n");
}

Result<int> protect(const ProtectOptions& options, const Globals& globals) {
  auto config = options.vm.resolve();
  if (!config.ok()) return config.error();
  if (!options.secondary.empty()) config->ft.secondary = options.secondary;
  if (const auto found = check_vm_config(*config); !found.empty()) return found.front();
  if (const Status s = use_backend(config->backend); !s.ok()) return s.error();
  SignalWatch signals;
  auto base = options.ft.open(*config, "primary");
  if (!base.ok()) return base.error();
  FtBase& ft = **base;
  ft.pair.contract = config->backend.contract();
  auto generation = begin_generation(*ft.arbiter, ft.pair, options.new_generation);
  if (!generation.ok()) return generation.error();

  auto live = LiveWorld::open(*config, {.gated = true});
  if (!live.ok()) return live.error();
  auto made = hv::Machine::create(machine_config(*config, (*live)->world().disk_sizes()), ft.gate);
  if (!made.ok()) return made.error();
  hv::Machine& machine = **made;
  const Status booted = machine.boot(
      {.kernel = config->kernel, .initrd = config->initrd, .cmdline = config->cmdline});
  if (!booted.ok()) return booted.error();

  // What the secondary is told: whether paths are compared.
  config->ipt_check = ft.ipt_check.value_or(config->ipt_check);
  FtLive pair(ft, *generation, *config, machine.config());
  auto control = ControlServer::start(
      config->name, [&pair](const nlohmann::json& request) { return pair.request(request); });
  if (!control.ok()) return control.error();
  std::unique_ptr<MetricsServer> metrics;
  if (!options.ft.metrics.empty()) {
    auto served = serve_metrics(options.ft.metrics, [&pair] { return pair.status(); });
    if (!served.ok()) return served.error();
    metrics = std::move(served).value();
  }
  if (!config->ft.secondary.empty())
    if (const Status s = pair.enable(config->ft.secondary); !s.ok()) return s.error();

  const auto started = std::chrono::steady_clock::now();
  const replay::EndOfInputs end = pair.run(**live, machine, signals);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
  const Outcome outcome = outcome_of(end);
  (*live)->world().stop();
  // Handed over or lost, the generation belongs to the other side's next one.
  if (end.kind != replay::EndKind::kFenced && end.kind != replay::EndKind::kHandedOver)
    if (const Status s = ft.arbiter->release(pair.generation()); !s.ok()) report(s.error());
  remark(globals, machine);
  if (const Status s = write_stats(options.ft.stats, machine, outcome, wall.count(), pair); !s.ok())
    return s.error();
  return finish(globals, outcome, machine.point(), "");
}

}  // namespace

void add_protect(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<ProtectOptions>();
  CLI::App* verb =
      app.add_subcommand("protect", "run a VM as the primary of a fault-tolerant pair");
  options->vm.add_to(*verb);
  options->ft.add_to(*verb);
  verb->add_option("--secondary", options->secondary, "HOST:PORT of a `standby`");
  verb->add_flag("--new-generation", options->new_generation,
                 "start although the arbiter says another side ran last; only when you know that "
                 "it runs nowhere");
  verb->callback([options, &globals, &exit_code] {
    const auto result = protect(*options, globals);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

}  // namespace us::tools
