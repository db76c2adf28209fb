#include "tests/unit/replay/guest.h"

#include "hv/boot/load_context.h"
#include "hv/boot_vcpu.h"
#include "hv/world/events.h"
#include "logchannel/memory_log.h"
#include "pmu/skid.h"
#include "replay-engine/live_source.h"
#include "replay-engine/recorder.h"

extern "C" const uint8_t payload_begin[], payload_end[];

namespace us::replay::test {

std::unique_ptr<hv::Machine> payload_machine(hv::OutputSink& world, uint64_t rounds) {
  constexpr uint64_t kEntry = 0x10'0000;
  auto made = hv::Machine::create({.memory_bytes = 8u << 20, .platform = {}}, world);
  US_CHECK(made.ok());
  std::unique_ptr<hv::Machine> machine = std::move(made).value();
  US_CHECK(machine->memory().write(GuestPhys(kEntry), {payload_begin, payload_end}));
  hv::BootState state = hv::long_mode_state(machine->memory(), kEntry);
  state.gpr[14] = rounds;
  hv::enter_boot_state(machine->vcpu(), state);
  return machine;
}

Recording record_payload(uint64_t rounds) {
  NoWorld world;
  auto machine = payload_machine(world, rounds);
  hv::WorldEvents events([&machine] { machine->kick(); });
  log::MemorySink sink;
  Recorder recorder(sink);
  Recording result;
  {
    LiveSource source(*machine, events,
                      {.anchor_interval = std::chrono::microseconds(50),
                       .time_limit = std::chrono::seconds(120),
                       .epoch_length = std::chrono::milliseconds(1),
                       .epochs_per_memory_check = 50});
    Lander lander;
    result.end = run_loop(*machine, source, lander, &recorder);
  }
  recorder.finish(*machine, result.end);
  US_CHECK(sink.flush().ok());
  result.log = sink.bytes();
  result.final_digest = recorder.final_digest();
  result.records = recorder.records();
  return result;
}

Replay replay_payload(const Bytes& log, uint64_t rounds, const pmu::HostProfile& profile) {
  NoWorld world;
  auto machine = payload_machine(world, rounds);
  log::MemoryStream stream(log);
  auto opening = read_opening(stream);
  US_CHECK(opening.ok());
  LogSource source(stream, std::move(opening->first));
  Verifier verifier;
  Lander lander(landing_profile(profile, *machine));
  Replay result;
  result.end = run_loop(*machine, source, lander, &verifier);
  result.final_digest = machine->whole_digest();
  result.landings = lander.counters();
  result.verified_epochs = verifier.verified_epochs();
  return result;
}

pmu::HostProfile late_profile(const std::string& skid, uint64_t seed, uint64_t margin) {
  const auto model = pmu::parse_skid(skid);
  US_CHECK(model.ok(), "{}", skid);
  pmu::HostProfile profile = ideal();
  profile.margin = margin;
  profile.model = pmu::ModelSettings{.skid = *model, .seed = seed};
  return profile;
}

pmu::HostProfile bad_profile(const pmu::Misbehaviour& bad, uint64_t margin) {
  pmu::HostProfile profile = ideal();
  profile.margin = margin;
  profile.model = pmu::ModelSettings{.misbehaviour = bad};
  return profile;
}

}  // namespace us::replay::test
