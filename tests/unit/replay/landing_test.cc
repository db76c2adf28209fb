// Landings on a guest made to be hard to land on. Every recorded point carries the exact
// instruction count, so a landing that is off by one instruction fails here.
#include <doctest/doctest.h>

#include "logchannel/memory_log.h"
#include "replay-engine/run_loop.h"
#include "tests/unit/replay/guest.h"

namespace us::replay::test {
namespace {

constexpr uint64_t kRounds = 120'000;

const Recording& recording() {
  static const Recording instance = record_payload(kRounds);
  return instance;
}

TEST_CASE("the payload records to its own power-off with hundreds of inputs") {
  CHECK(recording().end.kind == EndKind::kGuestPoweredOff);
  CHECK(recording().records > 200);
}

TEST_CASE("a recording replays to the same digest with exact alarms") {
  const Replay replay = replay_payload(recording().log, kRounds);
  CHECK_MESSAGE(replay.end.kind == EndKind::kGuestPoweredOff, replay.end.detail);
  CHECK(replay.final_digest.hex() == recording().final_digest.hex());
  CHECK(replay.verified_epochs > 5);
  CHECK(replay.landings.overshoots == 0);
}

TEST_CASE("a recording replays to the same digest under every skid model with margin enough") {
  struct Case {
    const char* skid;
    uint64_t margin;
  };
  for (const Case c :
       {Case{"fixed:100", 101}, Case{"uniform:0:200", 201}, Case{"geometric:20:400", 401},
        Case{"skylake", 101}, Case{"sapphire-rapids", 126}, Case{"heavy-tail:30:2000", 2001},
        Case{"bimodal:5:300:10", 301}}) {
    for (uint64_t seed = 1; seed <= 2; ++seed) {
      CAPTURE(c.skid);
      CAPTURE(seed);
      const Replay replay =
          replay_payload(recording().log, kRounds, late_profile(c.skid, seed, c.margin));
      CHECK_MESSAGE(replay.end.kind == EndKind::kGuestPoweredOff, replay.end.detail);
      CHECK(replay.final_digest.hex() == recording().final_digest.hex());
      CHECK(replay.landings.overshoots == 0);
      CHECK(replay.landings.skid_max <= c.margin);
    }
  }
}

TEST_CASE("a margin below a fixed skid ends in a reported overshoot that names calibrate") {
  const Replay replay = replay_payload(recording().log, kRounds, late_profile("fixed:100", 1, 40));
  CHECK(replay.end.kind == EndKind::kOvershoot);
  CHECK(replay.landings.overshoots == 1);
  CHECK(replay.end.detail.find("margin of 40 branches") != std::string::npos);
  REQUIRE(replay.end.error);
  CHECK(replay.end.error->id == "PMU-011");
  CHECK(replay.end.error->seen == "the alarm was 100 branches late, the margin is 40");
  CHECK(replay.end.error->mend.find("understudy calibrate") != std::string::npos);
}

TEST_CASE("a lander's health names landings, overshoots, alarms and the largest skid") {
  NoWorld world;
  auto machine = payload_machine(world, kRounds);
  Lander exact;
  CHECK(exact.health_text() == "0 landings, 0 overshoots; the processor's own exact counter");
  Lander late(landing_profile(late_profile("fixed:7", 1, 2), *machine));
  CHECK(late.land(*machine, {.branches = Branches(20)}).verdict == LandingVerdict::kOvershoot);
  CHECK(late.health_text() ==
        "1 landings, 1 overshoots; alarms armed 1, fired 1, missed 0, throttled 0; largest skid 7; "
        "counter kept");
}

TEST_CASE("a log cut anywhere replays to its last whole record and says that it ends there") {
  const Bytes& whole = recording().log;
  for (size_t cut : {whole.size() - 1, whole.size() * 3 / 4, whole.size() / 2}) {
    CAPTURE(cut);
    const Replay replay =
        replay_payload(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(cut)), kRounds);
    CHECK_MESSAGE(replay.end.kind == EndKind::kLogEnded, replay.end.detail);
  }
}

TEST_CASE("a guest that differs by one memory byte is caught at an epoch, with both points named") {
  NoWorld world;
  auto machine = payload_machine(world, kRounds);
  const uint8_t byte = 1;
  // Added to R13 by nobody, but copied by the REP MOVSB of every round.
  REQUIRE(machine->memory().write(GuestPhys(0x310000), {&byte, 1}));
  log::MemoryStream stream(recording().log);
  auto opening = read_opening(stream);
  REQUIRE(opening.ok());
  LogSource source(stream, std::move(opening->first));
  Verifier verifier;
  Lander lander;
  const EndOfInputs end = run_loop(*machine, source, lander, &verifier);
  CHECK(end.kind == EndKind::kDiverged);
  CHECK(end.detail.find("memory") != std::string::npos);
  CHECK(end.detail.find("last agreeing") != std::string::npos);
}

}  // namespace
}  // namespace us::replay::test
