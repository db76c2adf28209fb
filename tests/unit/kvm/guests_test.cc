// The KVM backend's own code against the model: whatever signals come, a guest ends as it does on
// the software processor.
#include <doctest/doctest.h>

#include "tests/support/kvm_guest/trial.h"
#include "tests/unit/kvm/rig.h"

namespace us::hv::kvm::test {
namespace {

constexpr uint64_t kRounds = 600;
constexpr Pace kPace{.anchor_interval = std::chrono::microseconds(100),
                     .epoch_length = std::chrono::milliseconds(1),
                     .time_limit = std::chrono::seconds(120)};

TEST_CASE("a guest recorded on KVM ends on the software processor with the same state") {
  Rig rig;
  load_payload(*rig.machine, kRounds);
  const Recording recording = record(*rig.machine, kPace);
  CHECK_MESSAGE(recording.end.kind == replay::EndKind::kGuestPoweredOff, recording.end.detail);
  CHECK(recording.records > 20);
  CHECK(rig.kvm.violations == std::vector<std::string>{});
  CHECK(rig.kvm.interruptions > 100);
  CHECK(rig.kvm.held_deliveries > 100);

  TextWorld world;
  auto soft = soft_machine(world);
  load_payload(*soft, kRounds);
  const Replayed replayed = replay_on(*soft, recording.log, false, 0);
  CHECK_MESSAGE(replayed.end.kind == replay::EndKind::kGuestPoweredOff, replayed.end.detail);
  const FinalState state = state_of(*soft);
  CHECK(state.registers == recording.state.registers);
  if (state.registers != recording.state.registers) MESSAGE(differences(*soft, *rig.machine));
  CHECK(state.devices == recording.state.devices);
  CHECK(state.memory == recording.state.memory);
  CHECK(world.text == rig.world.text);
}

// Records on one machine of the model, replays on another with other signals, another skid and, of
// course, another order of exits; every epoch's digest is compared.
void check_round_trip(const RigOptions& first, const RigOptions& second, uint64_t rounds,
                      uint64_t margin) {
  Rig rig(first);
  load_payload(*rig.machine, rounds);
  const Recording recording = record(*rig.machine, kPace);
  CHECK_MESSAGE(recording.end.kind == replay::EndKind::kGuestPoweredOff, recording.end.detail);
  CHECK(rig.kvm.violations == std::vector<std::string>{});

  Rig again(second);
  load_payload(*again.machine, rounds);
  const auto [end, landings] = replay_on(*again.machine, recording.log, true, margin);
  CHECK_MESSAGE(end.kind == replay::EndKind::kGuestPoweredOff, end.detail);
  CHECK(again.machine->whole_digest().hex() == recording.digest.hex());
  CHECK(again.kvm.violations == std::vector<std::string>{});
  CHECK(landings.overshoots == 0);
  CHECK(landings.landings > 3);
}

model::KvmModelOptions signals(uint64_t seed) {
  return {.seed = seed,
          .interrupt_entry_one_in = 4,
          .interrupt_after_branches = 300,
          .interrupt_delivery_one_in = 3,
          .time_exits = true};
}

TEST_CASE(
    "a recording made with counters replays with counters that are late, to the same digest") {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    CAPTURE(seed);
    const auto skid = pmu::parse_skid(seed == 1 ? "fixed:100" : "uniform:0:200");
    REQUIRE(skid.ok());
    RigOptions second{.kvm = signals(seed + 100)};
    second.perf.skid = *skid;
    second.perf.seed = seed;
    check_round_trip({.kvm = signals(seed)}, second, kRounds, 260);
  }
}

TEST_CASE("a recording replays by monitor steps, and with signals between any two instructions") {
  RigOptions second{.kvm = signals(7)};
  second.kvm.monitor_steps = true;
  second.kvm.interrupt_after_branches = 0;
  second.kvm.interrupt_after_steps = 20;
  check_round_trip({.kvm = signals(6)}, second, 100, 100);
}

TEST_CASE("a recording replays where RF does not get the guest over a breakpoint") {
  RigOptions second{.kvm = signals(9)};
  second.kvm.resume_flag_works = false;
  check_round_trip({.kvm = signals(8)}, second, 100, 100);
}

TEST_CASE("without a counter, instructions are stepped: the same guest, recorded and replayed") {
  RigOptions stepped{.kvm = signals(11), .counter = false};
  stepped.kvm.time_exits = false;
  SUBCASE("by the trap flag, both times") { check_round_trip(stepped, stepped, 40, 0); }
  SUBCASE("where a stepped HLT is reported as a step") {
    stepped.kvm.halt_ends_step = false;
    check_round_trip({.kvm = signals(14)}, stepped, 40, 0);
  }
  SUBCASE("replayed with a counter") { check_round_trip(stepped, {.kvm = signals(12)}, 40, 100); }
  SUBCASE("recorded with one") { check_round_trip({.kvm = signals(13)}, stepped, 40, 0); }
  SUBCASE("by monitor steps") {
    stepped.kvm.monitor_steps = true;
    check_round_trip(stepped, stepped, 40, 0);
  }
}

// A processor in software was seen to leave RF clear amid a string, and no shadow behind STI. A
// place there would be recorded that the software processor cannot find.
TEST_CASE("a step amid a string, or behind STI, is no place for an input, shown as such or not") {
  for (const bool shown : {false, true}) {
    CAPTURE(shown);
    RigOptions stepped{.kvm = signals(17), .counter = false};
    stepped.kvm.step_shows_holds = shown;
    int trials = 0;
    CHECK(try_guest({.stepped = modelled_vcpus(stepped), .rounds = 40, .pace = kPace},
                    [&trials](const Trial& trial) {
                      CAPTURE(trial.name);
                      CHECK(trial.failure == "");
                      ++trials;
                    }));
    CHECK(trials == 6);
  }
}

// So that the trial itself is known to work where there is no /dev/kvm to try.
TEST_CASE("what a real /dev/kvm is tried with passes on the model, stepped and counted") {
  const TrialHost host{.stepped = modelled_vcpus({.kvm = signals(15), .counter = false}),
                       .counted = modelled_vcpus({.kvm = signals(16)}),
                       .margin = 100,
                       .rounds = 40,
                       .pace = kPace};
  int trials = 0;
  const bool passed = try_guest(host, [&trials](const Trial& trial) {
    CAPTURE(trial.name);
    CHECK(trial.failure == "");
    ++trials;
  });
  CHECK(passed);
  CHECK(trials == 12);
}

}  // namespace
}  // namespace us::hv::kvm::test
