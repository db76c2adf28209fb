// The KVM backend's own code against the model: whatever signals come, a guest ends as it does on
// the software processor.
#include <doctest/doctest.h>

#include "logchannel/memory_log.h"
#include "replay-engine/live_source.h"
#include "replay-engine/log_source.h"
#include "replay-engine/recorder.h"
#include "replay-engine/run_loop.h"
#include "tests/unit/kvm/rig.h"

extern "C" const uint8_t kvm_payload_begin[], kvm_payload_end[];

namespace us::hv::kvm::test {
namespace {

constexpr uint64_t kRounds = 600;

void load(Machine& machine, uint64_t rounds) {
  load_payload(machine, kvm_payload_begin, kvm_payload_end, rounds);
}

struct Recording {
  Bytes log;
  replay::EndOfInputs end;
  FinalState state;
  Digest digest;
  uint64_t records = 0;
};

Recording record(Machine& machine) {
  WorldEvents events([&machine] { machine.kick(); });
  log::MemorySink sink;
  replay::Recorder recorder(sink);
  Recording result;
  {
    replay::LiveSource source(machine, events,
                              {.anchor_interval = std::chrono::microseconds(100),
                               .time_limit = std::chrono::seconds(120),
                               .epoch_length = std::chrono::milliseconds(1),
                               .epochs_per_memory_check = 5});
    replay::Lander lander;
    result.end = run_loop(machine, source, lander, &recorder);
  }
  recorder.finish(machine, result.end);
  US_CHECK(sink.flush().ok());
  result.log = sink.bytes();
  result.state = state_of(machine);
  result.digest = recorder.final_digest();
  result.records = recorder.records();
  return result;
}

// Replays; with `verify` the epochs' digests are compared on the way.
replay::EndOfInputs replay_on(Machine& machine, const Bytes& log, bool verify,
                              replay::LandingCounters& landings, uint64_t margin) {
  log::MemoryStream stream(log);
  auto opening = replay::read_opening(stream);
  US_CHECK(opening.ok());
  replay::LogSource source(stream, std::move(opening->first));
  replay::Verifier verifier;
  replay::Lander lander({.margin = margin, .minimum_period = 32});
  const replay::EndOfInputs end = run_loop(machine, source, lander, verify ? &verifier : nullptr);
  landings = lander.counters();
  return end;
}

TEST_CASE("a guest recorded on KVM ends on the software processor with the same state") {
  Rig rig;
  load(*rig.machine, kRounds);
  const Recording recording = record(*rig.machine);
  CHECK_MESSAGE(recording.end.kind == replay::EndKind::kGuestPoweredOff, recording.end.detail);
  CHECK(recording.records > 20);
  CHECK(rig.kvm.violations == std::vector<std::string>{});
  CHECK(rig.kvm.interruptions > 100);
  CHECK(rig.kvm.held_deliveries > 100);

  TextWorld world;
  auto soft = soft_machine(world);
  load(*soft, kRounds);
  replay::LandingCounters landings;
  const replay::EndOfInputs end = replay_on(*soft, recording.log, false, landings, 0);
  CHECK_MESSAGE(end.kind == replay::EndKind::kGuestPoweredOff, end.detail);
  const FinalState state = state_of(*soft);
  CHECK(state.registers == recording.state.registers);
  if (state.registers != recording.state.registers) MESSAGE(differences(*soft, *rig.machine));
  CHECK(state.devices == recording.state.devices);
  CHECK(state.memory == recording.state.memory);
  CHECK(world.text == rig.world.text);
}

}  // namespace
}  // namespace us::hv::kvm::test
