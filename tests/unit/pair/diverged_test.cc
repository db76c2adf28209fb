// A secondary that went another way: noticed, told, sent away, followed by another; the primary
// runs on.
#include <algorithm>
#include <doctest/doctest.h>
#include <vector>

#include "replay-engine/pair/live_side.h"

namespace us::replay {
namespace {

struct Doings final : LiveActions {
  void connect() override { ++connects; }
  void send(const log::Message&) override {}
  void send_frame(ByteSpan) override {}
  void drop_link() override { ++drops; }
  void claim(uint64_t generation) override { claimed = generation; }
  void wake_guest() override {}
  void event(const std::string& name, const std::string& detail) override {
    events.push_back(name + ": " + detail);
  }
  int connects = 0, drops = 0;
  uint64_t claimed = 0;
  std::vector<std::string> events;
};

struct Fixture {
  Doings doings;
  OutputGate gate{[] { return std::chrono::nanoseconds(0); }, nullptr};
  LiveSide side;
  std::chrono::nanoseconds now{std::chrono::seconds(1)};

  Fixture() : side(PairOptions{.vm_name = "web1", .node = "a"}, 3, gate, doings) {}

  // From nothing to protected.
  void protect(const std::string& not_traced = {}) {
    side.tick(now);
    side.linked(now);
    REQUIRE(side.message(now, log::Welcome{.node = "b", .verdict = log::WelcomeVerdict::kFresh}));
    const auto log = side.at_point().log;
    REQUIRE(log != nullptr);
    side.transferred(std::chrono::nanoseconds(0), not_traced);
    REQUIRE(side.message(now, log::Ack{.next_sequence = 0, .ready = true}));
    REQUIRE(side.at_point().arm);
    REQUIRE(side.arm(now, log,
                     {.at = {}, .body = log::Marker{log::MarkerKind::kGoLive, 0, "from here"}}));
    const LogPosition end = log->position();
    REQUIRE(side.message(
        now, log::Ack{.next_sequence = 1, .received = end, .replayed = end, .ready = true}));
    REQUIRE(side.state() == LiveState::kProtected);
  }
};

TEST_CASE("a secondary that diverged leaves the primary running, not protected and saying why") {
  Fixture f;
  f.side.enable(f.now, "at start");
  f.protect();
  CHECK(f.side.status(f.now).divergences == 0);

  const std::string what = "epoch 5 differs in registers (recorded 1, replayed 2)";
  f.side.message(f.now, log::Goodbye{log::GoodbyeReason::kDiverged, what});
  // Nobody but the arbiter says that the other side did not go live at that very moment.
  CHECK(f.side.state() == LiveState::kClaiming);
  CHECK(f.doings.claimed == 4);
  f.side.claimed(f.now, {.verdict = ClaimVerdict::kWon});
  LiveStatus status = f.side.status(f.now);
  CHECK(status.state == LiveState::kAlone);
  CHECK(status.reason == "the secondary left (diverged): " + what);
  CHECK(status.divergences == 1);
  CHECK(status.last_divergence == what);
  CHECK(f.side.at_point().halt == HaltReason::kNone);

  // A second later it looks for a secondary again, which gets the whole state.
  const int before = f.doings.connects;
  f.now += std::chrono::milliseconds(1001);
  f.side.tick(f.now);
  CHECK(f.doings.connects == before + 1);
  f.side.linked(f.now);
  REQUIRE(f.side.message(f.now, log::Welcome{.node = "b", .verdict = log::WelcomeVerdict::kFresh}));
  CHECK(f.side.state() == LiveState::kTransferring);
  status = f.side.status(f.now);
  CHECK(status.sessions == 2);
  // What happened stays in sight.
  CHECK(status.divergences == 1);
  CHECK(status.last_divergence == what);
}

TEST_CASE(
    "a guest that cannot be traced is protected, and status and an event say what is missing") {
  Fixture f;
  f.side.enable(f.now, "at start");
  f.protect("the guest cannot be traced");
  const LiveStatus status = f.side.status(f.now);
  CHECK(status.state == LiveState::kProtected);
  CHECK(status.not_traced == "the guest cannot be traced");
  CHECK(std::count(f.doings.events.begin(), f.doings.events.end(),
                   "not-traced: the guest cannot be traced") == 1);
}

TEST_CASE("a guest that is traced, or need not be, gets no word about it") {
  Fixture f;
  f.side.enable(f.now, "at start");
  f.protect();
  CHECK(f.side.status(f.now).not_traced.empty());
  for (const std::string& event : f.doings.events) CHECK(event.rfind("not-traced", 0) != 0);
}

}  // namespace
}  // namespace us::replay
