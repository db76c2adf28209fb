// `understudy standby`: waits for a primary, follows it, and takes its place when it is lost.
#include <chrono>
#include <thread>

#include "tools/control/control.h"
#include "tools/executor_option.h"
#include "tools/ft_options.h"
#include "tools/ft_standby.h"
#include "tools/stats.h"
#include "tools/talk.h"
#include "tools/verbs.h"

namespace us::tools {
namespace {

using std::chrono::nanoseconds;

struct StandbyOptions {
  std::string vm, name, listen, keep_log, executor;
  FtOptions ft;
  BackendChoice backend;
  bool once = false;
  uint64_t plant_fault = 0;  // tests: flip a bit of the guest's before this input
};

double seconds(nanoseconds d) { return std::chrono::duration<double>(d).count(); }

// What a standby is at the moment: waiting and following, or live. The control socket and the
// metrics ask here.
class StandbyFace {
 public:
  StandbyFace(FtBase& base, replay::StandbyDriver& driver) : base_(base), driver_(driver) {}

  void set_live(FtLive* live) {
    std::lock_guard lock(mutex_);
    live_ = live;
  }
  void set_name(const std::string& name) {
    std::lock_guard lock(mutex_);
    name_ = name;
  }
  void on_stop(std::function<void()> stop) {
    std::lock_guard lock(mutex_);
    stop_ = std::move(stop);
  }
  FtStatus status() {
    std::lock_guard lock(mutex_);
    return live_ != nullptr ? live_->status() : waiting_status();
  }
  Result<nlohmann::json> request(const nlohmann::json& request) {
    std::lock_guard lock(mutex_);
    if (live_ != nullptr) return live_->request(request);
    const std::string verb = request.value("verb", "");
    if (verb == "status") return to_json(waiting_status());
    if (verb == "stop" && stop_) {
      stop_();
      return to_json(waiting_status());
    }
    return UserError{.id = "FT-005",
                     .exit_code = ExitCode::kHostCannot,
                     .what = "a standby cannot do this",
                     .seen = "\"" + verb + "\"",
                     .needed = "status or stop; the rest is the primary's to do",
                     .mend = "ask the primary"};
  }

 private:
  FtStatus waiting_status() {
    const replay::StandbyStatus now = driver_.side().status(replay::steady_now());
    FtStatus s;
    s.vm_name = now.vm_name.empty() ? name_ : now.vm_name;
    s.role = "secondary";
    s.state = now.state == replay::StandbyState::kReceiving && !now.ready
                  ? "transferring"
                  : replay::name_of(now.state);
    s.reason = now.entitled && now.state == replay::StandbyState::kReceiving ? "" : now.reason;
    if (now.state == replay::StandbyState::kReceiving && !now.entitled)
      s.reason = "the primary's state is on its way here";
    s.peer = driver_.peer();
    s.arbiter = base_.arbiter->text();
    s.generation = now.generation;
    s.round_trip_seconds = seconds(now.round_trip);
    s.log_position = s.acked_position = now.received.value;
    s.replayed_position = now.replayed.value;
    s.buffer_bytes = now.buffer_bytes;
    s.buffer_limit_bytes = base_.pair.buffer_bytes;
    s.output_held = base_.gate.counters().held;
    s.sessions = now.sessions;
    s.reconnects = now.reconnects;
    return s;
  }

  FtBase& base_;
  replay::StandbyDriver& driver_;
  std::mutex mutex_;
  FtLive* live_ = nullptr;
  std::string name_;
  std::function<void()> stop_;
};

enum class After { kWaitAgain, kGoLive, kEnd };

// The world of a machine that goes live. The old primary's locks may take a moment to go, and
// storage that is away would stop the guest anyway: wait for both. Null: stopped meanwhile.
std::unique_ptr<LiveWorld> open_world(const VmConfig& config, FtBase& base,
                                      const std::atomic<bool>& stopped) {
  std::string last;
  while (!stopped) {
    auto live = LiveWorld::open(config, {.gated = true});
    if (live.ok()) return std::move(live).value();
    if (live.error().text() != last) {
      last = live.error().text();
      base.event("waiting-for-world", live.error().what + ": " + live.error().seen);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return nullptr;
}

class Standby {
 public:
  Standby(const StandbyOptions& options, const Globals& globals, FtBase& base, SignalWatch& signals)
      : options_(options),
        globals_(globals),
        base_(base),
        signals_(signals),
        driver_(base.pair, base.gate, *base.network, base.event),
        face_(base, driver_) {}

  Result<int> run(const std::string& vm_name) {
    face_.set_name(vm_name);
    const auto endpoint = log::parse_endpoint(options_.listen, "--listen");
    if (!endpoint.ok()) return endpoint.error();
    auto port = driver_.listen(*endpoint, base_.credentials);
    if (!port.ok()) return port.error();
    base_.event("listening", fmt::format("{}:{}", endpoint->host, *port));
    auto control = ControlServer::start(
        vm_name, [this](const nlohmann::json& request) { return face_.request(request); });
    if (!control.ok()) return control.error();
    std::unique_ptr<MetricsServer> metrics;
    if (!options_.ft.metrics.empty()) {
      auto served = serve_metrics(options_.ft.metrics, [this] { return face_.status(); });
      if (!served.ok()) return served.error();
      metrics = std::move(served).value();
    }
    const auto stop = [this] {
      stopped_ = true;
      driver_.stop("stopped on request");
    };
    signals_.on_stop(stop);
    face_.on_stop(stop);
    const auto code = serve();
    signals_.on_stop({});
    face_.on_stop({});
    return code;
  }

 private:
  Result<int> serve() {
    for (;;) {
      const auto session = driver_.wait_session();
      if (!session) {
        if (!globals_.quiet) fmt::print(stderr, "understudy: stopped on request\n");
        return static_cast<int>(ExitCode::kDone);
      }
      Shadow shadow = follow_session(base_, driver_, *session, options_.vm);
      const nanoseconds drained = replay::steady_now();
      switch (decide(shadow, *session)) {
        case After::kWaitAgain:
          if (stopped_ || options_.once) return static_cast<int>(ExitCode::kPeerLost);
          driver_.side().wait_again(session->generation);
          continue;
        case After::kEnd: return ended(shadow);
        case After::kGoLive: return go_live(shadow, *session, drained);
      }
    }
  }

  // What the end of a session means.
  After decide(const Shadow& shadow, const replay::StandbySession& session) {
    using replay::InboundEnd;
    if (shadow.error) {
      base_.event("session-unusable", shadow.error->what + ": " + shadow.error->seen);
      driver_.side().diverged(session.log, shadow.error->what);
      return After::kWaitAgain;
    }
    const replay::EndKind kind = shadow.end.kind;
    if (kind != replay::EndKind::kLogEnded) {
      const bool at_end = kind == replay::EndKind::kGuestPoweredOff ||
                          kind == replay::EndKind::kGuestFailed ||
                          kind == replay::EndKind::kStoppedByUser;
      if (at_end) return After::kEnd;
      base_.event("diverged", shadow.end.detail);
      driver_.side().diverged(session.log, shadow.end.detail);
      return After::kWaitAgain;
    }
    const InboundEnd why = session.log->why_ended();
    base_.event("session-ended", replay::describe(why));
    const bool take_over = why == InboundEnd::kPeerLost || why == InboundEnd::kTakeOver;
    if (take_over && session.log->entitled()) return After::kGoLive;
    return After::kWaitAgain;
  }

  // The guest's own end, seen on both sides.
  Result<int> ended(Shadow& shadow) {
    const Outcome outcome = outcome_of(shadow.end);
    if (!options_.ft.stats.empty()) {
      auto stats = run_stats(*shadow.machine, outcome, 0);
      stats["verified_epochs"] = shadow.verified_epochs;
      stats["ipt_epochs"] = shadow.traced.epochs;
      stats["ipt_unknown"] = shadow.traced.unknown;
      stats["landings"] = shadow.landings.landings;
      stats["landing_steps"] = shadow.landings.steps;
      stats["landing_overshoots"] = shadow.landings.overshoots;
      stats["landing_skid_max"] = shadow.landings.skid_max;
      stats["final_digest"] = shadow.final_digest.hex();
      if (const Status s = write_text(options_.ft.stats, stats.dump(2) + "\n"); !s.ok())
        return s.error();
    }
    return finish(globals_, outcome, shadow.machine->point(),
                  fmt::format("{} epochs verified, final digest {} on both sides",
                              shadow.verified_epochs, shadow.final_digest.hex()));
  }

  Result<int> go_live(Shadow& shadow, const replay::StandbySession& session, nanoseconds drained) {
    FtStatus measured;
    const nanoseconds lost = driver_.side().lost_at();
    measured.failovers = 1;
    measured.failover_detection_seconds = seconds(lost - driver_.side().last_heard());
    measured.failover_drain_seconds = std::max(0.0, seconds(drained - lost));
    const uint64_t generation = session.generation + 1;
    const auto claim = win(generation);
    if (claim.verdict != replay::ClaimVerdict::kWon) return fenced(claim, *shadow.machine);
    const nanoseconds won = replay::steady_now();
    measured.failover_arbiter_seconds = seconds(won - drained);
    driver_.side().close(fmt::format("this side is live as generation {}", generation));

    auto live = open_world(shadow.config, base_, stopped_);
    if (!live) return static_cast<int>(ExitCode::kDone);
    base_.gate.connect(&live->world());
    announce(live->world(), shadow.machine->config());
    FtLive pair(base_, generation, shadow.config, shadow.machine->config());
    measured.failover_go_live_seconds = seconds(replay::steady_now() - won);
    pair.note_failover(measured);
    face_.set_live(&pair);
    base_.event("live", fmt::format("generation {}; detection {:.1f} ms, drain {:.1f} ms, arbiter "
                                    "{:.1f} ms, go live {:.1f} ms",
                                    generation, 1e3 * measured.failover_detection_seconds,
                                    1e3 * measured.failover_drain_seconds,
                                    1e3 * measured.failover_arbiter_seconds,
                                    1e3 * measured.failover_go_live_seconds));
    // What the old primary may not have sent goes out (again), then everything as it comes.
    base_.gate.set_mode(replay::OutputGate::Mode::kThrough);
    const auto started = std::chrono::steady_clock::now();
    const replay::EndOfInputs end = pair.run(*live, *shadow.machine, signals_);
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - started;
    live->world().stop();
    if (end.kind != replay::EndKind::kFenced && end.kind != replay::EndKind::kHandedOver)
      if (const Status s = base_.arbiter->release(pair.generation()); !s.ok()) report(s.error());
    const Outcome outcome = outcome_of(end);
    remark(globals_, *shadow.machine);
    Status written = Done{};
    if (!options_.ft.stats.empty()) {
      auto stats = run_stats(*shadow.machine, outcome, wall.count());
      stats["ft"] = to_json(pair.status());
      written = write_text(options_.ft.stats, stats.dump(2) + "\n");
    }
    face_.set_live(nullptr);
    if (!written.ok()) return written.error();
    return finish(globals_, outcome, shadow.machine->point(), "");
  }

  // Asks until the arbiter knows: a side that cannot reach it waits.
  replay::Claim win(uint64_t generation) {
    for (;;) {
      const replay::Claim claim = base_.arbiter->claim(generation);
      if (claim.verdict != replay::ClaimVerdict::kUnreachable || stopped_) return claim;
      base_.event("arbiter-unreachable", claim.detail);
      std::this_thread::sleep_for(base_.pair.arbiter_retry);
    }
  }

  Result<int> fenced(const replay::Claim& claim, hv::Machine& machine) {
    base_.gate.set_mode(replay::OutputGate::Mode::kShut);
    driver_.side().close("not live");
    if (claim.verdict == replay::ClaimVerdict::kUnreachable)
      return finish(
          globals_,
          {ExitCode::kPeerLost, "stopped while the arbiter could not be reached: " + claim.detail},
          machine.point(), "");
    return finish(
        globals_,
        {ExitCode::kRefusedToGoLive, fmt::format("refused to go live: {} is live as generation {}",
                                                 claim.holder, claim.generation)},
        machine.point(), "");
  }

  const StandbyOptions& options_;
  const Globals& globals_;
  FtBase& base_;
  SignalWatch& signals_;
  std::atomic<bool> stopped_{false};
  replay::StandbyDriver driver_;
  StandbyFace face_;
};

// A fault for tests of pairs, once in the process's life: a bit of memory, before the n-th input.
// In the first page, which nobody uses behind the boot: a register may be dead where it is changed,
// memory is what it is until it is compared.
std::function<void(hv::Machine&)> flip_a_bit_at(uint64_t n) {
  return [n, seen = uint64_t{0}](hv::Machine& machine) mutable {
    if (++seen != n) return;
    constexpr GuestPhys kPlace(0x600);
    uint8_t byte = 0;
    US_CHECK(machine.memory().read(kPlace, {&byte, 1}));
    byte ^= 1;
    US_CHECK(machine.memory().write(kPlace, {&byte, 1}));
  };
}

Result<int> standby(const StandbyOptions& options, const Globals& globals) {
  VmConfig config;
  config.name = "";
  if (!options.vm.empty()) {
    auto read = read_vm_config(options.vm);
    if (!read.ok()) return read.error();
    config = std::move(read).value();
  }
  if (!options.name.empty()) config.name = options.name;
  if (config.name.empty()) config.name = "vm";
  use_executor(options.executor, config.executor);
  config.backend.by_steps = options.backend.by_steps;
  SignalWatch signals;
  auto base = options.ft.open(config, "standby");
  if (!base.ok()) return base.error();
  (*base)->keep_log = options.keep_log;
  (*base)->backend = options.backend;
  (*base)->pair.refuse_contract =
      [contracts = Contracts(options.backend, (*base)->profile)](const std::string& contract) {
        return contracts.refuse(contract);
      };
  if (options.plant_fault != 0) (*base)->meddle = flip_a_bit_at(options.plant_fault);
  Standby side(options, globals, **base, signals);
  return side.run(config.name);
}

}  // namespace

void add_standby(CLI::App& app, const Globals& globals, int& exit_code) {
  auto options = std::make_shared<StandbyOptions>();
  CLI::App* verb = app.add_subcommand(
      "standby", "be the secondary: follow a primary, and take its place when it is lost");
  verb->add_option("vm", options->vm,
                   "this host's VM description (vm.toml): its disks and networks are used when "
                   "this side goes live; default: as the primary has them");
  verb->add_option("--name", options->name,
                   "the VM's name (default: the description's, or \"vm\")");
  add_executor_option(*verb, options->executor);
  add_backend_options(*verb, options->backend);
  verb->add_option("--listen", options->listen, "ADDR:PORT to wait at")->required();
  verb->add_option("--keep-log", options->keep_log,
                   "keep what each session receives in this directory while it lasts, and for "
                   "`understudy diverge` where it diverged");
  // For tests of what a pair does about a fault; in no help text.
  verb->add_option("--plant-fault", options->plant_fault)->group("");
  verb->add_flag("--once", options->once, "end when the first session ends without a take-over");
  options->ft.add_to(*verb);
  verb->callback([options, &globals, &exit_code] {
    const auto result = standby(*options, globals);
    exit_code = result.ok() ? *result : report(result.error());
  });
}

}  // namespace us::tools
