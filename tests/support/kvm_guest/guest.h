// A guest that two processors must agree on (payload.S), recorded on one machine, replayed on
// another, and what is compared of them at the end.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "hv/machine.h"
#include "replay-engine/landing.h"
#include "replay-engine/source.h"

namespace us::hv::kvm::test {

// Takes outputs and drops them, but for the console's text.
class TextWorld final : public OutputSink {
 public:
  std::string text;
  void frame(uint8_t, Bytes) override {}
  void disk(DiskRequest) override {}
  void console(uint8_t, ByteSpan bytes) override { text.append(bytes.begin(), bytes.end()); }
};

constexpr uint64_t kGuestMemoryBytes = 8u << 20;

std::unique_ptr<Machine> soft_machine(OutputSink& world, uint64_t memory_bytes = kGuestMemoryBytes);

// The code between `begin` and `end` in a machine's memory at 1 MiB, in 64-bit mode with the first
// four GiB mapped one to one; `argument` in R14.
void load_code(Machine& machine, const uint8_t* begin, const uint8_t* end, uint64_t argument);
// payload.S, which powers off after so many rounds.
void load_payload(Machine& machine, uint64_t rounds);

// State that two backends must agree on: registers (not the count of instructions), devices,
// memory.
struct FinalState {
  std::string registers, devices, memory;
  bool operator==(const FinalState&) const = default;
};
FinalState state_of(Machine& machine);
// Which of the registers differ, for a test that failed.
std::string differences(Machine& a, Machine& b);

// How often the recorder looks at the guest.
struct Pace {
  std::chrono::nanoseconds anchor_interval, epoch_length, time_limit;
  uint64_t epochs_per_memory_check = 5;
  // Kicks of a storm. Each brings an input, and the guest must get somewhere between two.
  std::chrono::microseconds between_kicks = std::chrono::milliseconds(1);
};

struct Recording {
  Bytes log;
  replay::EndOfInputs end;
  FinalState state;
  Digest digest;
  uint64_t records = 0;
  uint64_t epochs = 0;
};
Recording record(Machine& machine, const Pace& pace);

struct Replayed {
  replay::EndOfInputs end;
  replay::LandingCounters landings;
};
// With `verify` the epochs' digests are compared on the way. `margin` in branches.
Replayed replay_on(Machine& machine, const Bytes& log, bool verify, uint64_t margin);

}  // namespace us::hv::kvm::test
