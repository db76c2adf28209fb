// Every misbehaviour of the modelled counter, met by a replay: either the engine works around it
// and the digest is right, or it says by name what the counter did. Never a wrong digest.
#include <doctest/doctest.h>

#include "tests/unit/replay/guest.h"

namespace us::replay::test {
namespace {

constexpr uint64_t kRounds = 40'000;

const Recording& recording() {
  static const Recording instance = record_payload(kRounds);
  return instance;
}

// The replay ended in this error, and its text says `words`.
void check_error(const Replay& replay, EndKind kind, const char* id,
                 std::initializer_list<const char*> words) {
  CHECK_MESSAGE(replay.end.kind == kind, replay.end.detail);
  REQUIRE(replay.end.error);
  const std::string text = replay.end.error->text();
  CAPTURE(text);
  CHECK(replay.end.error->id == id);
  for (const char* word : words) CHECK_MESSAGE(text.find(word) != std::string::npos, word);
}

void check_good(const Replay& replay) {
  CHECK_MESSAGE(replay.end.kind == EndKind::kGuestPoweredOff, replay.end.detail);
  CHECK(replay.final_digest.hex() == recording().final_digest.hex());
  CHECK(replay.landings.overshoots == 0);
}

}  // namespace

TEST_CASE("a counter that host interrupts add to is PMU-016, which names the overcount quirks") {
  const Replay replay = replay_payload(
      recording().log, kRounds, bad_profile({.overcount_one_in = 1, .overcount_branches = 2}, 10));
  check_error(replay, EndKind::kMiscount, "PMU-016",
              {"2 more than the guest has retired", "host-interrupt-overcount", "pmi-overcount"});
}

TEST_CASE("a counter that SMIs leak into is PMU-016, which names smi-leak and freeze_on_smi") {
  const Replay replay =
      replay_payload(recording().log, kRounds, bad_profile({.smi_interval_branches = 100'000}, 10));
  check_error(replay, EndKind::kMiscount, "PMU-016",
              {"more than the guest has retired", "smi-leak", "freeze_on_smi"});
}

TEST_CASE("a counter of taken branches only is PMU-016, which names the right event code") {
  const Replay replay =
      replay_payload(recording().log, kRounds, bad_profile({.taken_only = true}, 10));
  check_error(replay, EndKind::kMiscount, "PMU-016",
              {"fewer than the guest has retired", "taken-only-event", "0x11c4"});
}

TEST_CASE("a counter that loses every overflow is PMU-013, which names lost-overflow") {
  const Replay replay =
      replay_payload(recording().log, kRounds, bad_profile({.lose_one_in = 1}, 10));
  check_error(replay, EndKind::kOvershoot, "PMU-013", {"never came", "lost-overflow"});
  CHECK(replay.landings.alarms_lost >= 1);
  CHECK(replay.landings.overshoots == 1);
}

// Where the target is a HLT, the guest stops there by itself and nothing is lost; anywhere else the
// overshoot must be said. Which of the two a given alarm meets depends on the recording's timing.
TEST_CASE("overflows lost now and then end in PMU-013 or in the right digest, never in another") {
  for (const uint64_t one_in : {2, 20, 100}) {
    CAPTURE(one_in);
    const Replay replay =
        replay_payload(recording().log, kRounds, bad_profile({.lose_one_in = one_in}, 10));
    if (replay.end.kind == EndKind::kOvershoot) {
      check_error(replay, EndKind::kOvershoot, "PMU-013", {"lost-overflow"});
    } else {
      check_good(replay);
    }
  }
}

TEST_CASE("a throttled alarm is PMU-014, which names the sysctl that allows more") {
  const Replay replay =
      replay_payload(recording().log, kRounds,
                     bad_profile({.throttle_arms = 3, .throttle_window_branches = 5'000'000}, 10));
  check_error(replay, EndKind::kOvershoot, "PMU-014",
              {"throttled", "kernel.perf_event_max_sample_rate"});
}

// Overshoots only where an alarm was armed for less than the minimum and the margin does not cover
// the difference: the records of one stop, a few branches apart, are such.
TEST_CASE("a hidden minimum period of 32 or 128 is met by minimum_period in the profile") {
  for (const uint64_t period : {uint64_t{32}, uint64_t{128}}) {
    CAPTURE(period);
    pmu::HostProfile profile = bad_profile({.hidden_period_min = period}, 2);
    profile.minimum_period = period;
    check_good(replay_payload(recording().log, kRounds, profile));
  }
}

TEST_CASE("a hidden minimum period that the profile does not know is PMU-015, with the period") {
  for (const uint64_t period : {uint64_t{32}, uint64_t{128}}) {
    CAPTURE(period);
    NoWorld world;
    auto machine = payload_machine(world, kRounds);
    Lander lander(landing_profile(bad_profile({.hidden_period_min = period}, 2), *machine));
    // Past the first HLT, the timer's interrupt wakes it, the guest runs 511 rounds.
    while (machine->run({}) == hv::MachineStop::kTimersChanged) {
    }
    machine->apply(hv::AnchorInput{{.branches = machine->point().branches,
                                    .tsc = GuestTsc(200'000),
                                    .ticks_per_branch_q32 = 0,
                                    .tsc_ceiling = GuestTsc(200'000)}});
    const LandingResult result =
        lander.land(*machine, {.branches = machine->point().branches + 12});
    CHECK(result.verdict == LandingVerdict::kOvershoot);
    const EndOfInputs end = result.end();
    REQUIRE(end.error);
    CHECK(end.error->id == "PMU-015");
    CHECK(end.error->seen == fmt::format("an alarm 10 branches ahead came after {}", period));
    CHECK(end.error->needed.find(fmt::format("minimum_period = {}", period)) != std::string::npos);
    CHECK(end.error->mend.find(fmt::format("minimum-period-{}", period)) != std::string::npos);
    CHECK(end.error->mend.find("understudy calibrate") != std::string::npos);
  }
}

TEST_CASE("an unbounded skid above the margin is PMU-011, which names lateness and calibrate") {
  const Replay replay =
      replay_payload(recording().log, kRounds, late_profile("bimodal:5:3000:100", 1, 200));
  check_error(replay, EndKind::kOvershoot, "PMU-011",
              {"3000 branches late", "the margin is 200", "understudy calibrate -o host.toml"});
}

}  // namespace us::replay::test
