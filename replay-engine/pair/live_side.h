// The side that is live, as a state machine: alone, or bringing a secondary in, or the primary of a
// protected pair. It owns no socket, no thread and no clock: events and the time come in, actions
// go out, so that the very same code runs under the simulator.
//
//   alone -> connecting -> transferring -> protected <-> reconnecting
//     ^                                        |             |
//     +---- won ---- claiming <----------------+-------------+      lost -> halted
//
// One mutex; every call may come from any thread unless it says otherwise.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "logchannel/channel/message.h"
#include "replay-engine/arbiter/arbiter.h"
#include "replay-engine/pair/lag_control.h"
#include "replay-engine/pair/outbound_log.h"
#include "replay-engine/pair/output_gate.h"
#include "replay-engine/pair/pair_options.h"

namespace us::replay {

enum class LiveState : uint8_t {
  kAlone,         // runs without a secondary
  kConnecting,    // a connection is up, its greeting not yet answered
  kTransferring,  // the machine's state goes over; outputs are still free
  kProtected,
  kReconnecting,  // was protected, the connection is gone; outputs wait
  kClaiming,      // the secondary is lost or was sent away; the arbiter decides; outputs wait
  kHalted,        // must not run any more
};
const char* name_of(LiveState state);

enum class HaltReason : uint8_t { kNone, kFenced, kHandedOver };

// What the live side wants done. Called with its lock held: must not block and not call back.
class LiveActions {
 public:
  virtual ~LiveActions() = default;
  virtual void connect() = 0;  // one attempt; answered by linked() or connect_failed()
  virtual void send(const log::Message& message) = 0;
  virtual void send_frame(ByteSpan frame) = 0;
  virtual void drop_link() = 0;                 // unlinked() may or may not follow
  virtual void claim(uint64_t generation) = 0;  // answered by claimed()
  virtual void wake_guest() = 0;                // the vCPU thread should come to a point
  virtual void event(const std::string& name, const std::string& detail) = 0;
};

struct LiveStatus {
  LiveState state = LiveState::kAlone;
  std::string reason;  // why it is not protected; empty when it is
  uint64_t generation = 0;
  std::chrono::nanoseconds lag{0}, interval{0}, round_trip{0};
  double slowdown = 0;
  LogPosition position, acked, replayed;
  uint64_t log_bytes = 0;  // of this process, all sessions
  uint64_t buffer_bytes = 0;
  bool held_back = false;
  uint64_t sessions = 0, reconnects = 0;
  uint64_t divergences = 0;           // secondaries sent away since their execution was another
  std::string last_divergence;        // what the last of them said
  std::string not_traced;             // why paths are not compared in this session, though wanted
  std::chrono::nanoseconds pause{0};  // of the guest, at the last state transfer's end
};

class LiveSide {
 public:
  // `generation` is held by this node already. `gate` and `actions` outlive it.
  LiveSide(const PairOptions& options, uint64_t generation, OutputGate& gate, LiveActions& actions);

  using Now = std::chrono::nanoseconds;

  // --- The operator. Errors: FT-001 not possible in this state.
  void enable(Now now, std::string why_not_protected);  // find the peer that connect() reaches
  void disable(Now now);
  Status hand_over(Now now);  // test failover: halt, the secondary goes live

  // --- The network.
  void linked(Now now);
  void connect_failed(Now now, const std::string& why);
  void unlinked(Now now, const std::string& why);
  bool message(Now now, log::Message message);  // false: close the link, the peer is wrong
  void claimed(Now now, const Claim& claim);
  void tick(Now now);  // every 10 ms or so

  // --- The vCPU thread, with the guest at a point.
  struct Point {
    std::shared_ptr<OutboundLog> log;  // of the session under way; null: none
    bool arm = false;                  // the secondary could take over: call arm()
    HaltReason halt = HaltReason::kNone;
    double slowdown = 0;
  };
  Point at_point();
  // Whether the vCPU thread is wanted at a point although nothing happens.
  bool wants_point() const;
  // The state transfer's progress, and its end with how long the guest stood still; `not_traced`:
  // why the guest is not traced from here on, where that was wanted.
  void transferring(double fraction);
  void transferred(std::chrono::nanoseconds pause, std::string not_traced = {});
  // From this point on outputs wait. `marker` goes into the log first. False: the session is over.
  bool arm(Now now, const std::shared_ptr<OutboundLog>& log, const log::Record& marker);
  void appended(Now now, const std::shared_ptr<OutboundLog>& log);
  void held_back(bool is) { held_back_ = is; }
  // The VM ended here in an orderly way; the log holds its End record. Nobody goes live.
  void stopped(Now now);
  // The machine has halted for hand_over(); all of its log is written.
  void handed_over();

  LiveState state() const;
  LiveStatus status(Now now) const;
  double transfer_fraction() const;
  // Nothing waits any more: outputs are out, or never will be.
  bool settled() const;

 private:
  bool on_welcome(Now now, const log::Welcome& welcome);
  bool on_ack(Now now, const log::Ack& ack);
  void on_heartbeat(Now now, const log::Heartbeat& beat);
  void on_goodbye(Now now, const log::Goodbye& goodbye);
  void begin_session(Now now);
  void attach(uint64_t next_sequence);
  // The session is of no use any more. Armed: only the arbiter lets this side go on.
  void lose(Now now, const std::string& why);
  void begin_claim(Now now, const std::string& why);
  void go_alone(Now now, const std::string& why);
  void halt(HaltReason why, const std::string& text);
  void set_state(LiveState state);
  void try_connect(Now now);
  void check_peer(Now now);
  void beat(Now now);
  void drop_session();

  const PairOptions options_;
  OutputGate& gate_;
  LiveActions& actions_;

  mutable std::mutex mutex_;
  LiveState state_ = LiveState::kAlone;
  std::string reason_;
  uint64_t generation_;
  bool wanted_ = false;  // a secondary is to be found
  bool ended_ = false;   // the VM is over; only outputs may still wait
  bool transferred_ = false;
  bool linked_ = false, connecting_ = false;
  Now next_try_{0}, last_heard_{0}, lost_since_{0}, last_beat_{0}, next_claim_{0};
  bool claim_out_ = false;  // an answer of the arbiter's is awaited
  HaltReason halt_ = HaltReason::kNone;

  log::SessionId session_{};
  std::shared_ptr<OutboundLog> log_;
  bool ready_ = false, armed_ = false;
  LogPosition armed_at_, acked_, replayed_;
  LagControl lag_;
  double transfer_fraction_ = 0;
  std::chrono::nanoseconds pause_{0};
  uint64_t bytes_of_past_ = 0, sessions_ = 0, reconnects_ = 0;
  uint64_t divergences_ = 0;
  std::string last_divergence_, not_traced_;
  log::Heartbeat heard_;  // the peer's last
  Now heard_at_{0};
  std::atomic<bool> held_back_{false};
};

}  // namespace us::replay
