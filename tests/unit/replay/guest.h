// The payload of payload.S in a machine, recorded once and replayed as a test likes.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "hv/machine.h"
#include "pmu/profile.h"
#include "replay-engine/landing.h"
#include "replay-engine/log_source.h"

namespace us::replay::test {

// Takes outputs and drops them.
class NoWorld final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}
};

// A fresh machine about to run the payload for `rounds` rounds.
std::unique_ptr<hv::Machine> payload_machine(hv::OutputSink& world, uint64_t rounds);

struct Recording {
  Bytes log;
  Digest final_digest;
  EndOfInputs end;
  uint64_t records = 0;
};
// Runs it live and records it.
Recording record_payload(uint64_t rounds);

// No counter modelled: the processor's own alarm, which is exact.
inline pmu::HostProfile ideal() { return {.event = "model", .exact = true}; }

struct Replay {
  EndOfInputs end;
  Digest final_digest;
  LandingCounters landings;
  uint64_t verified_epochs = 0;
};
Replay replay_payload(const Bytes& log, uint64_t rounds, const pmu::HostProfile& profile = ideal());

// A counter that is late as `skid` (pmu/skid.h's text) says, drawn from `seed`, and a margin.
pmu::HostProfile late_profile(const std::string& skid, uint64_t seed, uint64_t margin);
// A counter without skid that misbehaves.
pmu::HostProfile bad_profile(const pmu::Misbehaviour& bad, uint64_t margin);

}  // namespace us::replay::test
