// One host: down, live, or standing by, with the glue that the drivers and verbs are in the
// product.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replay-engine/pair/live_side.h"
#include "replay-engine/pair/standby_side.h"
#include "tests/simulation/arbiter.h"
#include "tests/simulation/guest.h"
#include "tests/simulation/network.h"
#include "tests/simulation/simulation.h"

namespace us::sim {

// What both ends of a state transfer can look at: the copied guest, and the states that the
// primary's guest went through, record by record.
struct Transfer {
  uint64_t generation = 0;
  Guest guest;
  std::vector<uint64_t> states;
  LogPosition armed_at{~uint64_t{0}};  // after the record that entitles the secondary
  LogPosition kept;                    // the most that the secondary ever held
};

class Node;

// What the nodes share, and where the rules are checked.
class Simulation {
 public:
  Simulation(uint64_t seed, Planted planted);
  Outcome run();

  Schedule schedule;
  Random random;
  Register arbiter;
  const Planted planted;
  replay::PairOptions options;
  std::vector<std::shared_ptr<Transfer>> transfers;
  bool open[2] = {true, true};  // bytes from the live node, from the standby
  Outcome outcome;
  bool trace = false;
  void tell(const std::string& what) const;

  Node& other(const Node& node);
  void connected(std::shared_ptr<Connection> connection) { connection_ = std::move(connection); }
  // Rules.
  void violate(const std::string& what);
  void released(Node& by, uint64_t content);
  void went_live(Node& node);
  void lost_vm(Node& crashed);
  void lost_standby(const Node& crashed, bool claiming);
  bool over() const { return over_; }

 private:
  void plan_faults();
  void inject();
  void set_open(int mask, bool open_now);
  void check_progress();

  std::unique_ptr<Node> nodes_[2];
  std::weak_ptr<Connection> connection_;
  std::unordered_set<uint64_t> released_;
  uint64_t released_late_ = 0;
  std::string crashed_live_;
  bool over_ = false;
  bool quiet_ = false;
};

class Node final : public hv::OutputSink {
 public:
  Node(Simulation& sim, int id);
  ~Node() override;

  void start_live_first();
  void start_standby();
  void crash();
  void slow_down(Nanos until) { slow_until_ = until; }

  const std::string& name() const { return name_; }
  bool up() const { return live_ != nullptr || standby_ != nullptr; }
  bool is_live() const { return live_ != nullptr; }
  bool listens() const { return standby_ != nullptr; }
  Guest& guest() { return guest_; }
  replay::LiveState live_state() const;
  // Follows a session that it may go live from, or is on its way there.
  bool may_take_over() const;
  LogPosition kept() const;
  bool same_session(const Node& live) const;
  void accept(std::shared_ptr<Connection> connection);

  // What left the gate.
  void frame(uint8_t device, Bytes frame) override;
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}

  // The position that an output waits for, where it does.
  struct Need {
    std::shared_ptr<Transfer> transfer;
    LogPosition position;
    bool armed = false;
  };
  std::optional<Need> need_of(uint64_t content) const;

 private:
  struct Live;
  struct Standby;
  friend struct Live;
  friend struct Standby;

  // Runs `f` after `delay` unless this host crashed or changed sides meanwhile.
  void later(Nanos delay, std::function<void()> f);
  void tick();
  void live_step();
  void standby_step();
  void become_live(uint64_t generation);
  void retire();  // fenced: comes back as a standby after a while
  void emit(uint64_t content);

  Simulation& sim_;
  const std::string name_;
  uint64_t incarnation_ = 0;
  Guest guest_;
  std::unique_ptr<replay::OutputGate> gate_;
  std::unique_ptr<Live> live_;
  std::unique_ptr<Standby> standby_;
  Nanos slow_until_{0};
};

}  // namespace us::sim
