// The side that waits, as a state machine: no session, or the secondary of one. Like LiveSide it
// owns no socket, thread or clock.
//
//   waiting -> receiving <-> broken (connection gone, it may come back)
//      ^            |           |
//      +-- over <---+-----------+      over: the log has ended; whoever replays it decides what
//      next
//
// One mutex; calls may come from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "logchannel/channel/message.h"
#include "replay-engine/pair/inbound_log.h"
#include "replay-engine/pair/output_gate.h"
#include "replay-engine/pair/pair_options.h"

namespace us::replay {

enum class StandbyState : uint8_t { kWaiting, kReceiving, kBroken, kOver, kClosed };
const char* name_of(StandbyState state);

using LinkId = uint64_t;  // names one connection for as long as the process lives

class StandbyActions {
 public:
  virtual ~StandbyActions() = default;
  virtual void send(LinkId link, const log::Message& message) = 0;
  virtual void drop_link(LinkId link) = 0;
  virtual void pause_reading(LinkId link, bool paused) = 0;
  virtual void session_begun() = 0;  // take_session() has one for the replaying thread
  virtual void event(const std::string& name, const std::string& detail) = 0;
};

// A session, for who replays it.
struct StandbySession {
  std::shared_ptr<InboundLog> log;
  std::string vm_name, primary_node;
  uint64_t generation = 0;                  // the primary's; to go live is to claim the next
  std::array<uint8_t, 16> config_digest{};  // of the machine announced
  std::string contract;                     // of its backend
};

struct StandbyStatus {
  StandbyState state = StandbyState::kWaiting;
  std::string reason, vm_name, primary_node;
  uint64_t generation = 0;
  LogPosition received, replayed;
  uint64_t buffer_bytes = 0;
  bool ready = false, entitled = false;
  uint64_t sessions = 0, reconnects = 0;
  std::chrono::nanoseconds silent_for{0};
  std::chrono::nanoseconds round_trip{0};
};

class StandbySide {
 public:
  // `vm_name` in the options may be empty: any VM's primary is accepted. `shadow` outlives it.
  StandbySide(const PairOptions& options, OutputGate& shadow, StandbyActions& actions);

  using Now = std::chrono::nanoseconds;

  // --- The network.
  bool message(Now now, LinkId link, log::Message message);  // false: close that link
  void unlinked(Now now, LinkId link, const std::string& why);
  void tick(Now now);

  // --- The replaying thread.
  std::optional<StandbySession> take_session();  // once for each that begins
  // Its machine is loaded: this side could take over, as far as the log has come.
  void ready(const std::shared_ptr<InboundLog>& log);
  // Replay found that this side's execution is not the primary's.
  void diverged(const std::shared_ptr<InboundLog>& log, const std::string& what);
  // The session is done with; wait for another. `generation` is the latest this side knows of.
  void wait_again(uint64_t generation);
  // No session is taken any more: this side is live, or ends.
  void close(const std::string& why);
  // When the peer was heard last, and when its loss was noticed.
  Now last_heard() const;
  Now lost_at() const;

  StandbyState state() const;
  StandbyStatus status(Now now) const;

 private:
  std::string refuse_contract(const std::string& contract) const;
  bool on_hello(Now now, LinkId link, const log::Hello& hello);
  bool refuse(LinkId link, log::RefuseReason reason, std::string text);
  bool on_frame(Now now, const log::FrameMessage& frame);
  void on_heartbeat(Now now, const log::Heartbeat& beat);
  void on_goodbye(Now now, const log::Goodbye& goodbye);
  void send_ack(Now now);
  void end_session(Now now, InboundEnd why, const std::string& reason);
  void set_state(StandbyState state);
  bool resumable(const log::Hello& hello) const;

  const PairOptions options_;
  OutputGate& shadow_;
  StandbyActions& actions_;

  mutable std::mutex mutex_;
  StandbyState state_ = StandbyState::kWaiting;
  std::string reason_ = "no primary has connected yet";
  uint64_t generation_ = 0;  // the latest seen
  LinkId link_ = 0;          // 0: none
  log::Hello hello_;         // of the session under way
  std::shared_ptr<InboundLog> log_;
  bool fresh_ = false;  // not yet taken
  bool ready_ = false, paused_ = false;
  LogPosition acked_replayed_;
  Now last_heard_{0}, broken_since_{0}, lost_at_{0}, last_beat_{0}, last_ack_{0}, heard_at_{0};
  log::Heartbeat heard_;
  Now round_trip_{0};
  uint64_t sessions_ = 0, reconnects_ = 0;
};

}  // namespace us::replay
