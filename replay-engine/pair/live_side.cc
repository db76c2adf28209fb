#include "replay-engine/pair/live_side.h"

#include <algorithm>
#include <sys/random.h>

#include "base/check.h"
#include "base/overloaded.h"

namespace us::replay {
namespace {

constexpr int kGreetingPatience = 6;  // times `silence`: the secondary may be busy with its disks

uint64_t count(std::chrono::nanoseconds d) {
  return static_cast<uint64_t>(std::max<int64_t>(d.count(), 0));
}

}  // namespace

const char* name_of(LiveState state) {
  switch (state) {
    case LiveState::kAlone: return "alone";
    case LiveState::kConnecting: return "connecting";
    case LiveState::kTransferring: return "transferring";
    case LiveState::kProtected: return "protected";
    case LiveState::kReconnecting: return "reconnecting";
    case LiveState::kClaiming: return "claiming";
    case LiveState::kHalted: return "halted";
  }
  return "?";
}

LiveSide::LiveSide(const PairOptions& options, uint64_t generation, OutputGate& gate,
                   LiveActions& actions)
    : options_(options),
      gate_(gate),
      actions_(actions),
      generation_(generation),
      lag_(options.lag) {}

void LiveSide::set_state(LiveState state) {
  if (state == state_) return;
  state_ = state;
  if (state == LiveState::kProtected) reason_.clear();
  actions_.event(name_of(state), reason_);
}

// --- The operator

void LiveSide::enable(Now now, std::string why_not_protected) {
  std::lock_guard lock(mutex_);
  wanted_ = true;
  next_try_ = now;
  if (state_ == LiveState::kAlone) reason_ = std::move(why_not_protected);
}

void LiveSide::disable(Now now) {
  std::lock_guard lock(mutex_);
  wanted_ = false;
  if (state_ == LiveState::kAlone) {
    reason_ = "protection is turned off";
    return;
  }
  if (linked_) actions_.send(log::Goodbye{log::GoodbyeReason::kDisabled, "turned off"});
  lose(now, "protection is turned off");
}

Status LiveSide::hand_over(Now) {
  std::lock_guard lock(mutex_);
  if (state_ != LiveState::kProtected) {
    return UserError{
        .id = "FT-001",
        .exit_code = ExitCode::kHostCannot,
        .what = "no failover: " + options_.vm_name + " is not protected",
        .seen = std::string("state ") + name_of(state_) + (reason_.empty() ? "" : ": " + reason_),
        .needed = "state protected, with a secondary that can take over",
        .mend = "see `understudy status " + options_.vm_name + "`"};
  }
  wanted_ = false;
  halt_ = HaltReason::kHandedOver;
  actions_.wake_guest();
  return Done{};
}

void LiveSide::handed_over() {
  std::lock_guard lock(mutex_);
  if (log_) log_->send_now();
  actions_.send(log::Goodbye{log::GoodbyeReason::kTakeOver, "test failover"});
  halt(HaltReason::kHandedOver, "handed over to the secondary");
}

void LiveSide::stopped(Now) {
  std::lock_guard lock(mutex_);
  wanted_ = false;
  ended_ = true;
  if (!linked_ || !log_) return;
  log_->send_now();
  actions_.send(log::Goodbye{log::GoodbyeReason::kStopped, "the VM has ended"});
}

// --- The network

void LiveSide::try_connect(Now now) {
  const bool may = wanted_ && (state_ == LiveState::kAlone || state_ == LiveState::kReconnecting);
  if (!may || linked_ || connecting_ || now < next_try_) return;
  connecting_ = true;
  actions_.connect();
}

void LiveSide::connect_failed(Now now, const std::string& why) {
  std::lock_guard lock(mutex_);
  connecting_ = false;
  next_try_ = now + (armed_ ? options_.reconnect : options_.retry);
  if (state_ == LiveState::kAlone && wanted_) reason_ = "no secondary: " + why;
}

void LiveSide::linked(Now now) {
  std::lock_guard lock(mutex_);
  connecting_ = false;
  const bool may = wanted_ && (state_ == LiveState::kAlone || state_ == LiveState::kReconnecting);
  if (!may) return actions_.drop_link();
  linked_ = true;
  last_heard_ = now;
  heard_ = {};
  if (!armed_) {
    US_CHECK(getrandom(session_.data(), session_.size(), 0) ==
             static_cast<ssize_t>(session_.size()));
    set_state(LiveState::kConnecting);
  }
  actions_.send(log::Hello{.vm_name = options_.vm_name,
                           .node = options_.node,
                           .contract = options_.contract,
                           .config_digest = options_.config_digest,
                           .generation = generation_,
                           .session = session_,
                           .first_sequence = log_ ? log_->first_sequence() : 0});
}

void LiveSide::unlinked(Now now, const std::string& why) {
  std::lock_guard lock(mutex_);
  if (!linked_) return;
  linked_ = false;
  if (log_) log_->detach();
  if (state_ == LiveState::kHalted || state_ == LiveState::kClaiming) return;
  next_try_ = now + (armed_ ? std::chrono::nanoseconds(0) : options_.retry);
  if (!armed_ || ended_) return lose(now, why);
  if (state_ != LiveState::kReconnecting) lost_since_ = now;
  reason_ = why;
  set_state(LiveState::kReconnecting);
  try_connect(now);
}

bool LiveSide::message(Now now, log::Message message) {
  bool good = true;
  std::optional<LogPosition> covered;
  {
    std::lock_guard lock(mutex_);
    last_heard_ = now;
    if (auto* welcome = std::get_if<log::Welcome>(&message)) {
      good = on_welcome(now, *welcome);
    } else if (auto* ack = std::get_if<log::Ack>(&message)) {
      good = on_ack(now, *ack);
      if (good && armed_) covered = acked_;
    } else if (auto* heartbeat = std::get_if<log::Heartbeat>(&message)) {
      on_heartbeat(now, *heartbeat);
    } else if (auto* goodbye = std::get_if<log::Goodbye>(&message)) {
      on_goodbye(now, *goodbye);
    } else {
      good = false;  // a primary's words from a secondary
    }
  }
  // Not under the lock: what is let out may take its time, and only this thread brings acks.
  if (covered) gate_.covered(*covered);
  return good;
}

bool LiveSide::on_welcome(Now now, const log::Welcome& welcome) {
  if (welcome.verdict == log::WelcomeVerdict::kRefused) {
    const std::string why =
        fmt::format("the secondary refused ({}): {}", log::name_of(welcome.reason), welcome.text);
    // Somebody may have gone live meanwhile: only the arbiter knows.
    if (armed_ || welcome.reason == log::RefuseReason::kOldGeneration) {
      begin_claim(now, why);
    } else {
      lose(now, why);
    }
    next_try_ = now + options_.retry;
    return false;
  }
  if (armed_) {
    if (welcome.verdict != log::WelcomeVerdict::kResume) {
      begin_claim(now, "the secondary has forgotten this session");
      return false;
    }
    const bool whole =
        log_->attach(welcome.next_sequence, [this](ByteSpan frame) { actions_.send_frame(frame); });
    if (!whole) {
      begin_claim(now, "the secondary needs log that is no longer kept");
      return false;
    }
    ++reconnects_;
    set_state(acked_ >= armed_at_ ? LiveState::kProtected : LiveState::kTransferring);
    return true;
  }
  if (welcome.verdict != log::WelcomeVerdict::kFresh || state_ != LiveState::kConnecting)
    return false;
  begin_session(now);
  return true;
}

void LiveSide::begin_session(Now now) {
  log_ = std::make_shared<OutboundLog>(options_.frame, options_.buffer_bytes);
  US_CHECK(log_->attach(0, [this](ByteSpan frame) { actions_.send_frame(frame); }));
  lag_ = LagControl(options_.lag);
  acked_ = replayed_ = armed_at_ = {};
  ready_ = armed_ = transferred_ = false;
  transfer_fraction_ = 0;
  ++sessions_;
  reason_ = "the machine's state is on its way to the secondary";
  last_beat_ = now;
  set_state(LiveState::kTransferring);
  actions_.wake_guest();
}

bool LiveSide::on_ack(Now, const log::Ack& ack) {
  if (!log_ || !log_->acked(ack.next_sequence) || ack.received > log_->position() ||
      ack.replayed > ack.received)
    return false;
  acked_ = std::max(acked_, ack.received);
  replayed_ = std::max(replayed_, ack.replayed);
  lag_.replayed(replayed_);
  if (ack.ready && transferred_ && !ready_) {
    ready_ = true;
    actions_.wake_guest();
  }
  if (armed_ && state_ == LiveState::kTransferring && acked_ >= armed_at_)
    set_state(LiveState::kProtected);
  return true;
}

void LiveSide::on_heartbeat(Now now, const log::Heartbeat& heartbeat) {
  heard_ = heartbeat;
  heard_at_ = now;
  const uint64_t away = heartbeat.echo_ns + heartbeat.echo_held_ns;
  if (heartbeat.echo_ns == 0 || away > count(now)) return;
  lag_.round_trip(std::chrono::nanoseconds(static_cast<int64_t>(count(now) - away)));
}

void LiveSide::on_goodbye(Now now, const log::Goodbye& goodbye) {
  next_try_ = now + options_.retry;
  if (goodbye.reason == log::GoodbyeReason::kDiverged) {
    ++divergences_;
    last_divergence_ = goodbye.text;
  }
  lose(now, fmt::format("the secondary left ({}){}{}", log::name_of(goodbye.reason),
                        goodbye.text.empty() ? "" : ": ", goodbye.text));
}

// --- Loss

void LiveSide::drop_session() {
  if (log_) {
    log_->detach();
    bytes_of_past_ += log_->bytes_made();
  }
  log_.reset();
  ready_ = armed_ = transferred_ = false;
  not_traced_.clear();
}

void LiveSide::lose(Now now, const std::string& why) {
  if (state_ == LiveState::kHalted || state_ == LiveState::kClaiming) return;
  // A VM that has ended, with all it had to say, needs nobody's leave.
  const bool over = ended_ && gate_.counters().held == 0;
  if (armed_ && !over) return begin_claim(now, why);
  if (linked_) actions_.drop_link();
  linked_ = false;
  drop_session();
  go_alone(now, why);
}

void LiveSide::begin_claim(Now, const std::string& why) {
  if (linked_) actions_.drop_link();
  linked_ = false;
  drop_session();
  if (gate_.mode() == OutputGate::Mode::kThrough) gate_.set_mode(OutputGate::Mode::kHold);
  reason_ = why;
  set_state(LiveState::kClaiming);
  claim_out_ = true;
  actions_.claim(generation_ + 1);
}

void LiveSide::claimed(Now now, const Claim& claim) {
  std::lock_guard lock(mutex_);
  claim_out_ = false;
  if (state_ != LiveState::kClaiming) return;
  switch (claim.verdict) {
    case ClaimVerdict::kWon:
      ++generation_;
      go_alone(now, reason_);
      return;
    case ClaimVerdict::kLost:
      halt(HaltReason::kFenced,
           fmt::format("{} is live as generation {}", claim.holder, claim.generation));
      return;
    case ClaimVerdict::kUnreachable: next_claim_ = now + options_.arbiter_retry; return;
  }
}

void LiveSide::go_alone(Now now, const std::string& why) {
  reason_ = why;
  next_try_ = std::max(next_try_, now + options_.retry);
  gate_.set_mode(OutputGate::Mode::kThrough);
  set_state(LiveState::kAlone);
  actions_.wake_guest();
}

void LiveSide::halt(HaltReason why, const std::string& text) {
  halt_ = why;
  reason_ = text;
  gate_.set_mode(OutputGate::Mode::kShut);
  drop_session();
  set_state(LiveState::kHalted);
  actions_.wake_guest();
}

// --- Time

void LiveSide::tick(Now now) {
  std::lock_guard lock(mutex_);
  if (state_ == LiveState::kHalted) return;
  if (state_ == LiveState::kClaiming && !claim_out_ && now >= next_claim_) {
    claim_out_ = true;
    actions_.claim(generation_ + 1);
  }
  check_peer(now);
  if (linked_ && now - last_beat_ >= options_.heartbeat) beat(now);
  if (log_ && log_->unsent()) log_->send_now();
  if (armed_) lag_.tick(now);
  try_connect(now);
}

void LiveSide::check_peer(Now now) {
  if (linked_) {
    const int patience = state_ == LiveState::kConnecting ? kGreetingPatience : 1;
    if (now - last_heard_ > patience * options_.silence)
      lose(now, fmt::format("the secondary was silent for {} ms",
                            (now - last_heard_).count() / 1'000'000));
  } else if (state_ == LiveState::kReconnecting && now - lost_since_ > options_.closed_grace) {
    begin_claim(now, "the secondary was lost: " + reason_);
  }
}

void LiveSide::beat(Now now) {
  last_beat_ = now;
  const bool greeted = state_ != LiveState::kConnecting && state_ != LiveState::kReconnecting;
  if (!greeted) return;
  actions_.send(log::Heartbeat{.sent_ns = count(now),
                               .echo_ns = heard_.sent_ns,
                               .echo_held_ns = heard_.sent_ns == 0 ? 0 : count(now - heard_at_),
                               .released = armed_ ? gate_.released() : LogPosition{}});
}

// --- The vCPU thread

LiveSide::Point LiveSide::at_point() {
  std::lock_guard lock(mutex_);
  return {.log = log_,
          .arm = ready_ && !armed_,
          .halt = halt_,
          .slowdown = armed_ ? lag_.slowdown() : 0};
}

bool LiveSide::wants_point() const {
  std::lock_guard lock(mutex_);
  if (halt_ != HaltReason::kNone) return true;
  if (!log_) return false;
  return (!transferred_ && log_->has_room()) || (ready_ && !armed_);
}

void LiveSide::transferring(double fraction) {
  std::lock_guard lock(mutex_);
  transfer_fraction_ = fraction;
}

void LiveSide::transferred(std::chrono::nanoseconds pause, std::string not_traced) {
  std::lock_guard lock(mutex_);
  transferred_ = true;
  transfer_fraction_ = 1;
  pause_ = pause;
  not_traced_ = std::move(not_traced);
  if (!not_traced_.empty()) actions_.event("not-traced", not_traced_);
}

bool LiveSide::arm(Now now, const std::shared_ptr<OutboundLog>& log, const log::Record& marker) {
  std::lock_guard lock(mutex_);
  if (log_ != log || !ready_ || armed_ || halt_ != HaltReason::kNone) return false;
  gate_.set_mode(OutputGate::Mode::kHold);
  armed_at_ = log_->append(marker);
  log_->send_now();
  armed_ = true;
  lag_.appended(armed_at_, now);
  return true;
}

void LiveSide::appended(Now now, const std::shared_ptr<OutboundLog>& log) {
  std::lock_guard lock(mutex_);
  if (log_ == log && log_) lag_.appended(log_->position(), now);
}

// --- For people

LiveState LiveSide::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

double LiveSide::transfer_fraction() const {
  std::lock_guard lock(mutex_);
  return transfer_fraction_;
}

bool LiveSide::settled() const {
  std::lock_guard lock(mutex_);
  return state_ == LiveState::kAlone || state_ == LiveState::kHalted || gate_.counters().held == 0;
}

LiveStatus LiveSide::status(Now now) const {
  std::lock_guard lock(mutex_);
  LiveStatus s{.state = state_,
               .reason = state_ == LiveState::kProtected ? "" : reason_,
               .generation = generation_,
               .lag = armed_ ? lag_.lag(now) : Now{0},
               .interval = armed_ ? lag_.interval() : Now{0},
               .round_trip = lag_.round_trip(),
               .slowdown = armed_ ? lag_.slowdown() : 0,
               .acked = acked_,
               .replayed = replayed_,
               .log_bytes = bytes_of_past_,
               .held_back = held_back_,
               .sessions = sessions_,
               .reconnects = reconnects_,
               .divergences = divergences_,
               .last_divergence = last_divergence_,
               .not_traced = not_traced_,
               .pause = pause_};
  if (log_) {
    s.position = log_->position();
    s.buffer_bytes = log_->bytes_waiting();
    s.log_bytes += log_->bytes_made();
  }
  return s;
}

}  // namespace us::replay
