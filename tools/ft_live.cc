#include "tools/ft_live.h"

#include <cstring>

#include "base/digest.h"
#include "hv/machine_config.h"
#include "tools/talk.h"

namespace us::tools {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr auto kSettlePatience = std::chrono::seconds(10);
constexpr auto kLinger = milliseconds(500);

Bytes to_bytes(const std::string& text) { return {text.begin(), text.end()}; }
double seconds(nanoseconds d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

void GuestHandle::set(hv::Machine* machine, hv::WorldEvents* events) {
  std::lock_guard lock(mutex_);
  machine_ = machine;
  events_ = events;
}

void GuestHandle::kick() {
  std::lock_guard lock(mutex_);
  if (machine_ != nullptr) machine_->kick();
}

void GuestHandle::wake() {
  std::lock_guard lock(mutex_);
  if (machine_ != nullptr) machine_->kick();
  if (events_ != nullptr) events_->wake();
}

FtBase::FtBase(replay::PairOptions pair_options, log::Credentials with,
               std::unique_ptr<replay::Arbiter> who, replay::EventHandler on_event)
    : pair(std::move(pair_options)),
      credentials(std::move(with)),
      arbiter(std::move(who)),
      event(std::move(on_event)),
      gate(replay::steady_now, [this] { guest.kick(); }),
      network(log::Network::start()) {}

replay::WitnessOptions witness(const FtBase& base, const VmConfig& config) {
  replay::WitnessOptions options = base.witness;
  options.check = base.ipt_check.value_or(config.ipt_check);
  return options;
}

std::array<uint8_t, 16> config_digest(const hv::MachineConfig& machine) {
  ByteWriter bytes;
  hv::encode(machine, bytes);
  const Digest digest = digest_of(bytes.bytes());
  std::array<uint8_t, 16> out{};
  std::memcpy(out.data(), &digest.low, 8);
  std::memcpy(out.data() + 8, &digest.high, 8);
  return out;
}

namespace {

replay::PairOptions announcing(replay::PairOptions pair, const hv::MachineConfig& machine) {
  pair.config_digest = config_digest(machine);
  return pair;
}

}  // namespace

FtLive::FtLive(FtBase& base, uint64_t generation, const VmConfig& config,
               const hv::MachineConfig& machine)
    : base_(base),
      config_(config),
      driver_(announcing(base.pair, machine), generation, base.gate, *base.network, *base.arbiter,
              base.event) {}

Status FtLive::enable(const std::string& secondary) {
  auto endpoint = log::parse_endpoint(secondary, "the secondary's address");
  if (!endpoint.ok()) return endpoint.error();
  driver_.enable(*endpoint, base_.credentials);
  return Done{};
}

std::vector<replay::NamedSection> FtLive::sections(const hv::Machine& machine) const {
  ByteWriter config;
  hv::encode(machine.config(), config);
  return {{"vm", to_bytes(to_toml(config_))}, {"machine", config.take()}};
}

replay::EndOfInputs FtLive::run(LiveWorld& live, hv::Machine& machine, SignalWatch& signals) {
  base_.gate.connect(&live.world());
  base_.guest.set(&machine, &live.events());
  replay::LiveOptions options;
  options.record_wanted = [this](bool idle) {
    return base_.gate.wants_record(idle) || driver_.side().wants_point();
  };
  replay::LiveSource source(machine, live.events(), options);
  replay::LiveObserver observer(driver_.side(), base_.gate, sections(machine), replay::steady_now,
                                progress_, witness(base_, config_));
  driver_.on_wake([this] { base_.guest.wake(); });
  live.attach(&machine);
  const auto stop = [&] {
    observer.request_stop();
    source.request_stop();
  };
  {
    std::lock_guard lock(mutex_);
    stop_ = stop;
  }
  live.on_quit(stop);
  signals.on_stop(stop);
  for (hv::DiskRequest& request : machine.platform().disk_requests_in_flight())
    live.world().disk(std::move(request));

  replay::Lander lander;
  const replay::EndOfInputs end = replay::run_loop(machine, source, lander, &observer);
  if (end.kind == replay::EndKind::kHostFailed && end.error) report(*end.error);

  signals.on_stop({});
  live.on_quit({});
  live.attach(nullptr);
  {
    std::lock_guard lock(mutex_);
    stop_ = nullptr;
  }
  base_.guest.set(nullptr, nullptr);
  observer.finish(machine, end);
  settle(end);
  if (end.kind != replay::EndKind::kFenced) live.world().drain();
  driver_.close(kLinger);
  return end;
}

// Outputs of the last moments wait for their acknowledgements, or for the arbiter's word.
void FtLive::settle(const replay::EndOfInputs&) {
  const auto until = std::chrono::steady_clock::now() + kSettlePatience;
  while (!driver_.side().settled() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(milliseconds(1));
}

void FtLive::request_stop() {
  std::lock_guard lock(mutex_);
  if (stop_) stop_();
}

Result<nlohmann::json> FtLive::request(const nlohmann::json& request) {
  const std::string verb = request.value("verb", "");
  if (verb == "status") return to_json(status());
  Status done = Done{};
  if (verb == "stop") {
    request_stop();
  } else if (verb == "failover") {
    done = driver_.side().hand_over(replay::steady_now());
  } else if (verb == "disable") {
    driver_.side().disable(replay::steady_now());
  } else if (verb == "enable") {
    done = enable(request.value("secondary", config_.ft.secondary));
  } else {
    return UserError{.id = "FT-006",
                     .what = "the control socket knows no such request",
                     .seen = "\"" + verb + "\"",
                     .needed = "status, failover, stop, enable or disable",
                     .mend = "use the same build of understudy on both ends"};
  }
  if (!done.ok()) return done.error();
  return to_json(status());
}

void FtLive::note_failover(const FtStatus& measured) {
  std::lock_guard lock(mutex_);
  failover_ = measured;
}

FtStatus FtLive::status() {
  const nanoseconds now = replay::steady_now();
  const replay::LiveStatus live = driver_.side().status(now);
  const replay::GateCounters gate = base_.gate.counters();
  std::lock_guard lock(mutex_);
  FtStatus s = failover_;
  s.vm_name = config_.name;
  s.role = "primary";
  s.state = replay::name_of(live.state);
  s.reason = live.reason;
  s.peer = driver_.peer();
  s.arbiter = base_.arbiter->text();
  s.generation = live.generation;
  s.lag_seconds = seconds(live.lag);
  s.vlockstep_interval_seconds = seconds(live.interval);
  s.round_trip_seconds = seconds(live.round_trip);
  s.lag_target_seconds = seconds(base_.pair.lag.target);
  s.slowdown_percent = 100 * live.slowdown;
  s.log_position = live.position.value;
  s.acked_position = live.acked.value;
  s.replayed_position = live.replayed.value;
  s.log_bytes = live.log_bytes;
  if (now - last_look_ > milliseconds(200)) {
    bytes_per_second_ = static_cast<double>(live.log_bytes - last_bytes_) /
                        std::max(seconds(now - last_look_), 1e-3);
    if (last_look_.count() == 0) bytes_per_second_ = 0;
    last_bytes_ = live.log_bytes;
    last_look_ = now;
  }
  s.log_bytes_per_second = bytes_per_second_;
  s.output_held = gate.held;
  s.output_held_bytes = gate.held_bytes;
  s.outputs_released = gate.released;
  s.hold_p50_seconds = seconds(gate.p50);
  s.hold_p99_seconds = seconds(gate.p99);
  s.hold_max_seconds = seconds(gate.max);
  s.buffer_bytes = live.buffer_bytes;
  s.buffer_limit_bytes = base_.pair.buffer_bytes;
  s.held_back = live.held_back;
  s.sessions = live.sessions;
  s.reconnects = live.reconnects;
  s.divergences = live.divergences;
  s.last_divergence = live.last_divergence;
  s.not_traced = live.not_traced;
  s.transfer_percent = 100 * driver_.side().transfer_fraction();
  s.last_pause_seconds = seconds(live.pause);
  s.branches = progress_.branches;
  s.instructions = progress_.instructions;
  s.guest_seconds = static_cast<double>(progress_.guest_ticks) / static_cast<double>(hv::kTscHz);
  return s;
}

}  // namespace us::tools
