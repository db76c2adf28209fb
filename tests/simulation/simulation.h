// The fault-tolerant pair's own code (state machines, gate, lag control, logs, message and record
// codecs) between a simulated guest, network, arbiter and clock, driven from one seed. Rules are
// checked at every step; docs/ARCHITECTURE.md lists them.
#pragma once

#include <cstdint>
#include <string>

namespace us::sim {

// Mistakes planted on purpose, to see that the rules find them.
enum class Planted : uint8_t {
  kNothing,
  kAckBeforeKeep,         // the secondary acknowledges frames that it may still lose
  kReleaseBeforeAck,      // the primary lets outputs out at once
  kGoLiveWithoutArbiter,  // the secondary does not ask
};

struct Outcome {
  std::string violation;  // empty: every rule held
  uint64_t failovers = 0, sessions = 0, outputs = 0, fenced = 0, records = 0;
  bool vm_lost = false;  // a crash where nobody could take over, as it may be
};

// `trace`: tell on stdout what happens.
Outcome simulate(uint64_t seed, Planted planted, bool trace = false);

}  // namespace us::sim
