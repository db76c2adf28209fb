#include "replay-engine/pair/standby_side.h"

#include <algorithm>

namespace us::replay {
namespace {

constexpr auto kAckPeriod = std::chrono::milliseconds(5);  // for progress alone

uint64_t count(std::chrono::nanoseconds d) {
  return static_cast<uint64_t>(std::max<int64_t>(d.count(), 0));
}

}  // namespace

const char* name_of(StandbyState state) {
  switch (state) {
    case StandbyState::kWaiting: return "waiting";
    case StandbyState::kReceiving: return "replaying";
    case StandbyState::kBroken: return "reconnecting";
    case StandbyState::kOver: return "session over";
    case StandbyState::kClosed: return "closed";
  }
  return "?";
}

StandbySide::StandbySide(const PairOptions& options, OutputGate& shadow, StandbyActions& actions)
    : options_(options), shadow_(shadow), actions_(actions) {}

void StandbySide::set_state(StandbyState state) {
  if (state == state_) return;
  state_ = state;
  actions_.event(name_of(state), reason_);
}

bool StandbySide::message(Now now, LinkId link, log::Message message) {
  std::optional<LogPosition> released;
  bool good = true;
  {
    std::lock_guard lock(mutex_);
    if (const auto* hello = std::get_if<log::Hello>(&message)) return on_hello(now, link, *hello);
    if (link != link_ || link_ == 0) return false;  // an old connection, already replaced
    last_heard_ = now;
    if (const auto* frame = std::get_if<log::FrameMessage>(&message)) {
      good = on_frame(now, *frame);
    } else if (const auto* heartbeat = std::get_if<log::Heartbeat>(&message)) {
      on_heartbeat(now, *heartbeat);
      if (log_) released = heartbeat->released;
    } else if (const auto* goodbye = std::get_if<log::Goodbye>(&message)) {
      on_goodbye(now, *goodbye);
    } else {
      good = false;
    }
  }
  if (released) shadow_.covered(*released);
  return good;
}

bool StandbySide::resumable(const log::Hello& hello) const {
  return log_ && hello.session == hello_.session && hello.generation == hello_.generation &&
         (state_ == StandbyState::kReceiving || state_ == StandbyState::kBroken);
}

std::string StandbySide::refuse_contract(const std::string& contract) const {
  if (options_.refuse_contract) return options_.refuse_contract(contract);
  if (contract == options_.contract) return "";
  return fmt::format("backend contract \"{}\" there, \"{}\" here", contract, options_.contract);
}

bool StandbySide::on_hello(Now now, LinkId link, const log::Hello& hello) {
  using log::RefuseReason;
  if (hello.version != log::kProtocolVersion)
    return refuse(
        link, RefuseReason::kVersion,
        fmt::format("protocol version {} there, {} here", hello.version, log::kProtocolVersion));
  if (const std::string why = refuse_contract(hello.contract); !why.empty())
    return refuse(link, RefuseReason::kContract, why);
  if (!options_.vm_name.empty() && hello.vm_name != options_.vm_name)
    return refuse(link, RefuseReason::kOtherVm,
                  fmt::format("VM \"{}\" there, \"{}\" here", hello.vm_name, options_.vm_name));
  if (hello.generation < generation_)
    return refuse(
        link, RefuseReason::kOldGeneration,
        fmt::format("generation {} there, {} was seen here", hello.generation, generation_));
  if (resumable(hello)) {
    if (hello.config_digest != hello_.config_digest)
      return refuse(link, RefuseReason::kConfig, "the session was begun by another machine");
    if (log_->next_sequence() < hello.first_sequence)
      return refuse(link, RefuseReason::kGap, "the frame needed next is gone there");
    if (link_ != 0) actions_.drop_link(link_);
    link_ = link;
    last_heard_ = now;
    paused_ = false;
    ++reconnects_;
    reason_.clear();
    actions_.send(link, log::Welcome{.node = options_.node,
                                     .verdict = log::WelcomeVerdict::kResume,
                                     .next_sequence = log_->next_sequence(),
                                     .generation = generation_});
    set_state(StandbyState::kReceiving);
    return true;
  }
  // A session that nobody else could go live from gives way to a newer one.
  if (state_ != StandbyState::kWaiting) {
    const bool idle = state_ == StandbyState::kBroken && log_ && !log_->entitled();
    if (idle) end_session(now, InboundEnd::kReplaced, "the primary began a new session");
    return refuse(link, RefuseReason::kBusy,
                  state_ == StandbyState::kClosed ? reason_ : "another session is under way");
  }
  link_ = link;
  hello_ = hello;
  generation_ = hello.generation;
  log_ = std::make_shared<InboundLog>();
  fresh_ = true;
  ready_ = paused_ = false;
  acked_replayed_ = {};
  heard_ = {};
  last_heard_ = last_beat_ = now;
  ++sessions_;
  reason_.clear();
  actions_.send(link, log::Welcome{.node = options_.node,
                                   .verdict = log::WelcomeVerdict::kFresh,
                                   .next_sequence = 0,
                                   .generation = generation_});
  set_state(StandbyState::kReceiving);
  actions_.session_begun();
  return true;
}

bool StandbySide::refuse(LinkId link, log::RefuseReason reason, std::string text) {
  actions_.event("refused", text);
  actions_.send(link, log::Welcome{.node = options_.node,
                                   .verdict = log::WelcomeVerdict::kRefused,
                                   .reason = reason,
                                   .generation = generation_,
                                   .text = std::move(text)});
  return false;
}

bool StandbySide::on_frame(Now now, const log::FrameMessage& frame) {
  if (!log_ || state_ != StandbyState::kReceiving) return false;
  std::string why;
  if (!log_->add(frame.frame, why)) {
    actions_.send(link_, log::Goodbye{log::GoodbyeReason::kFailed, "the log is unusable: " + why});
    end_session(now, InboundEnd::kUnusable, "the log is unusable: " + why);
    return false;
  }
  send_ack(now);
  if (!paused_ && log_->bytes_waiting() > options_.buffer_bytes) {
    paused_ = true;
    actions_.pause_reading(link_, true);
  }
  return true;
}

void StandbySide::send_ack(Now now) {
  last_ack_ = now;
  acked_replayed_ = log_->replayed();
  actions_.send(link_, log::Ack{.next_sequence = log_->next_sequence(),
                                .received = log_->received(),
                                .replayed = acked_replayed_,
                                .ready = ready_});
}

void StandbySide::on_heartbeat(Now now, const log::Heartbeat& heartbeat) {
  heard_ = heartbeat;
  heard_at_ = now;
  const uint64_t away = heartbeat.echo_ns + heartbeat.echo_held_ns;
  if (heartbeat.echo_ns != 0 && away <= count(now))
    round_trip_ = Now(static_cast<int64_t>(count(now) - away));
}

void StandbySide::on_goodbye(Now now, const log::Goodbye& goodbye) {
  InboundEnd why = InboundEnd::kPeerLost;
  switch (goodbye.reason) {
    case log::GoodbyeReason::kStopped: why = InboundEnd::kStopped; break;
    case log::GoodbyeReason::kDisabled: why = InboundEnd::kDisabled; break;
    case log::GoodbyeReason::kTakeOver: why = InboundEnd::kTakeOver; break;
    case log::GoodbyeReason::kFenced: why = InboundEnd::kFenced; break;
    case log::GoodbyeReason::kDiverged: why = InboundEnd::kUnusable; break;
    case log::GoodbyeReason::kFailed: why = InboundEnd::kPeerLost; break;
  }
  end_session(now, why, goodbye.text);
}

void StandbySide::unlinked(Now now, LinkId link, const std::string& why) {
  std::lock_guard lock(mutex_);
  if (link != link_ || link_ == 0) return;
  link_ = 0;
  if (state_ != StandbyState::kReceiving) return;
  broken_since_ = now;
  reason_ = why;
  set_state(StandbyState::kBroken);
}

void StandbySide::end_session(Now now, InboundEnd why, const std::string& reason) {
  if (state_ != StandbyState::kReceiving && state_ != StandbyState::kBroken) return;
  lost_at_ = now;
  reason_ = reason;
  if (link_ != 0) actions_.drop_link(link_);
  link_ = 0;
  log_->end(why);
  set_state(StandbyState::kOver);
}

void StandbySide::tick(Now now) {
  std::lock_guard lock(mutex_);
  if (state_ == StandbyState::kBroken && now - broken_since_ > options_.closed_grace)
    return end_session(now, InboundEnd::kPeerLost, "the primary was lost: " + reason_);
  if (state_ != StandbyState::kReceiving) return;
  if (!paused_ && now - last_heard_ > options_.silence + options_.secondary_extra)
    return end_session(
        now, InboundEnd::kPeerLost,
        fmt::format("the primary was silent for {} ms", (now - last_heard_).count() / 1'000'000));
  if (paused_ && log_->bytes_waiting() < options_.buffer_bytes / 2) {
    paused_ = false;
    last_heard_ = now;
    actions_.pause_reading(link_, false);
  }
  if (now - last_ack_ >= kAckPeriod && log_->replayed() != acked_replayed_) send_ack(now);
  if (now - last_beat_ < options_.heartbeat) return;
  last_beat_ = now;
  actions_.send(link_,
                log::Heartbeat{.sent_ns = count(now),
                               .echo_ns = heard_.sent_ns,
                               .echo_held_ns = heard_.sent_ns == 0 ? 0 : count(now - heard_at_)});
}

std::optional<StandbySession> StandbySide::take_session() {
  std::lock_guard lock(mutex_);
  if (!fresh_) return std::nullopt;
  fresh_ = false;
  return StandbySession{
      log_, hello_.vm_name, hello_.node, hello_.generation, hello_.config_digest, hello_.contract};
}

void StandbySide::ready(const std::shared_ptr<InboundLog>& log) {
  std::lock_guard lock(mutex_);
  if (log != log_) return;
  ready_ = true;
  if (state_ == StandbyState::kReceiving) send_ack(last_heard_);
}

void StandbySide::diverged(const std::shared_ptr<InboundLog>& log, const std::string& what) {
  std::lock_guard lock(mutex_);
  if (log != log_ || state_ != StandbyState::kReceiving) return;
  actions_.send(link_,
                log::Goodbye{log::GoodbyeReason::kDiverged, what.substr(0, log::kChannelTextMax)});
  end_session(last_heard_, InboundEnd::kUnusable, "diverged: " + what);
}

void StandbySide::wait_again(uint64_t generation) {
  std::lock_guard lock(mutex_);
  if (state_ == StandbyState::kClosed) return;
  if (link_ != 0) actions_.drop_link(link_);
  link_ = 0;
  log_.reset();
  fresh_ = ready_ = false;
  generation_ = std::max(generation_, generation);
  set_state(StandbyState::kWaiting);
}

void StandbySide::close(const std::string& why) {
  std::lock_guard lock(mutex_);
  if (link_ != 0) actions_.drop_link(link_);
  link_ = 0;
  if (log_) log_->end(InboundEnd::kStoppedHere);
  reason_ = why;
  set_state(StandbyState::kClosed);
}

StandbySide::Now StandbySide::last_heard() const {
  std::lock_guard lock(mutex_);
  return last_heard_;
}

StandbySide::Now StandbySide::lost_at() const {
  std::lock_guard lock(mutex_);
  return lost_at_;
}

StandbyState StandbySide::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

StandbyStatus StandbySide::status(Now now) const {
  std::lock_guard lock(mutex_);
  StandbyStatus s{.state = state_,
                  .reason = reason_,
                  .vm_name = hello_.vm_name,
                  .primary_node = hello_.node,
                  .generation = generation_,
                  .ready = ready_,
                  .sessions = sessions_,
                  .reconnects = reconnects_,
                  .silent_for = link_ != 0 ? now - last_heard_ : Now{0},
                  .round_trip = round_trip_};
  if (log_) {
    s.received = log_->received();
    s.replayed = log_->replayed();
    s.buffer_bytes = log_->bytes_waiting();
    s.entitled = log_->entitled();
  }
  return s;
}

}  // namespace us::replay
