#include "tests/simulation/simulation.h"

#include <fmt/format.h>

#include "tests/simulation/node.h"

namespace us::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Nanos kFaultsEnd = seconds(4);
constexpr Nanos kQuiet = seconds(5);      // for everything to come to rest
constexpr Nanos kLookAgain = seconds(1);  // in which outputs must still flow

}  // namespace

Simulation::Simulation(uint64_t seed, Planted what) : random(seed), planted(what) {
  options.vm_name = "sim";
  // Full buffers happen in every third run.
  if (random.chance(0.33)) options.buffer_bytes = 200 + random.below(4000);
  nodes_[0] = std::make_unique<Node>(*this, 0);
  nodes_[1] = std::make_unique<Node>(*this, 1);
}

void Simulation::tell(const std::string& what) const {
  if (trace) fmt::print("{:9.6f} {}\n", static_cast<double>(schedule.now().count()) / 1e9, what);
}

Node& Simulation::other(const Node& node) {
  return &node == nodes_[0].get() ? *nodes_[1] : *nodes_[0];
}

void Simulation::violate(const std::string& what) {
  if (outcome.violation.empty())
    outcome.violation =
        fmt::format("at {:.3f} s: {}", static_cast<double>(schedule.now().count()) / 1e9, what);
  over_ = true;
}

// Rules: no output leaves whose log the secondary lacks; a side that was superseded shows nothing
// that the new live side does not know.
void Simulation::released(Node& by, uint64_t content) {
  ++outcome.outputs;
  if (quiet_) ++released_late_;
  const auto latest = arbiter.latest();
  if (latest.second != by.name()) {
    if (!other(by).guest().outputs.contains(content))
      violate(by.name() + " let an output out although " + latest.second + " is the live side");
    return;
  }
  released_.insert(content);
  const auto need = by.need_of(content);
  if (!need) return;
  const bool alone = latest.first > need->transfer->generation;
  Node& peer = other(by);
  LogPosition kept = need->transfer->kept;
  if (peer.same_session(by)) kept = std::max(kept, peer.kept());
  if (!alone && need->armed && kept < need->position)
    violate(by.name() + " let an output out that the secondary has no log for");
}

// Rule: what the world saw is in the new live side's history. One live side at a time.
void Simulation::went_live(Node& node) {
  ++outcome.failovers;
  for (const uint64_t content : released_)
    if (!node.guest().outputs.contains(content))
      return violate(node.name() + " went live without an output that the world has seen");
}

void Simulation::lost_vm(Node& crashed) {
  Node& peer = other(crashed);
  if (peer.same_session(crashed) && crashed.live_state() == replay::LiveState::kProtected &&
      !peer.may_take_over())
    return violate("protected, and yet nobody could take over");
  crashed_live_ = crashed.name();
  if (peer.may_take_over()) return;
  outcome.vm_lost = true;
  over_ = true;
}

// A second crash before the first was made good: nothing could have helped.
void Simulation::lost_standby(const Node& crashed, bool claiming) {
  // What it asked of the arbiter may be granted to the dead.
  if (claiming) crashed_live_ = crashed.name();
  if (other(crashed).is_live()) return;
  outcome.vm_lost = true;
  over_ = true;
}

void Simulation::set_open(int mask, bool open_now) {
  tell(fmt::format("network {} {}", mask, open_now ? "heals" : "cut"));
  for (int side = 0; side < 2; ++side) {
    if ((mask >> side & 1) == 0) continue;
    open[side] = open_now;
    if (auto c = connection_.lock()) c->set_open(side, open_now);
  }
}

void Simulation::inject() {
  Node& node = *nodes_[random.below(2)];
  switch (random.below(6)) {
    case 0:
    case 1: {
      node.crash();
      schedule.after(random.between(milliseconds(30), milliseconds(900)), [&node] {
        if (!node.up()) node.start_standby();
      });
      break;
    }
    case 2:
    case 3: {
      const int mask = 1 + static_cast<int>(random.below(3));
      set_open(mask, false);
      schedule.after(random.between(milliseconds(10), milliseconds(1500)),
                     [this, mask] { set_open(mask, true); });
      break;
    }
    case 4:
      node.slow_down(schedule.now() + random.between(milliseconds(50), milliseconds(1500)));
      break;
    case 5:
      (random.chance(0.5) ? arbiter.away : arbiter.slow) = true;
      schedule.after(random.between(milliseconds(50), milliseconds(1200)),
                     [this] { arbiter.away = arbiter.slow = false; });
      break;
  }
}

void Simulation::plan_faults() {
  const uint64_t faults = 1 + random.below(6);
  for (uint64_t i = 0; i < faults; ++i)
    schedule.at(schedule.now() + random.between(milliseconds(20), kFaultsEnd),
                [this] { inject(); });
}

// Rule: when the faults stop, the VM is protected again and goes on.
void Simulation::check_progress() {
  const bool first = nodes_[0]->is_live(), second = nodes_[1]->is_live();
  if (first && second) return violate("two live sides at rest");
  if (!first && !second) {
    // A primary that was already alone, or became so at the arbiter in its last moment, is gone
    // with its VM; any other must have been followed.
    if (arbiter.latest().second != crashed_live_) return violate("no live side at rest");
    outcome.vm_lost = true;
    return;
  }
  Node& live = first ? *nodes_[0] : *nodes_[1];
  if (live.live_state() != replay::LiveState::kProtected)
    return violate(fmt::format("not protected at rest: {}", replay::name_of(live.live_state())));
  if (released_late_ == 0) violate("no output flows at rest");
}

Outcome Simulation::run() {
  nodes_[0]->start_live_first();
  schedule.after(milliseconds(1), [this] { nodes_[1]->start_standby(); });
  plan_faults();
  const Nanos end = schedule.now() + kFaultsEnd + kQuiet;
  schedule.at(end, [this] { quiet_ = true; });
  schedule.at(end + kLookAgain, [this] {
    check_progress();
    over_ = true;
  });
  while (!over_ && schedule.run_next()) {
  }
  return outcome;
}

Outcome simulate(uint64_t seed, Planted planted, bool trace) {
  Simulation simulation(seed, planted);
  simulation.trace = trace;
  return simulation.run();
}

}  // namespace us::sim
