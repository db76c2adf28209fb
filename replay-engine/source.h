// Where a machine's inputs come from. The live world and a log are two of them, and the loop cannot
// tell them apart.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/result.h"
#include "hv/core/execution_point.h"
#include "hv/core/input_output.h"
#include "hv/machine.h"

namespace us::replay {

// An input and the point where it is (or was) applied.
struct StampedInput {
  hv::ExecutionPoint point;
  hv::Input input;
};

// Why there are no more inputs.
enum class EndKind : uint8_t {
  kGuestPoweredOff,
  kGuestReset,     // asked for a reset
  kDebugExit,      // wrote the debug exit port
  kGuestFailed,    // triple fault, or halted with interrupts off for good
  kStoppedByUser,  // Ctrl-C or `stop`
  kTimeLimit,
  kSizeLimit,
  kLogEnded,     // a log without an end record: the last whole frame was reached
  kLogUnusable,  // the log broke its own rules
  kDiskFull,     // the log could not be written
  kDiverged,     // replay does not match what was recorded
  kOvershoot,    // landing ran past its target
  kMiscount,     // the branch counter is not exact
  kFenced,       // another side is live: this one lost the arbiter
  kHandedOver,   // halted for a test failover; the secondary goes live
  kHostFailed,   // the vCPU cannot run on: see hv::Vcpu::failure()
};

struct EndOfInputs {
  EndKind kind = EndKind::kStoppedByUser;
  std::string detail;
  std::optional<UserError> error = std::nullopt;  // where there is more to say, and a way to mend
};

// The end that a vCPU's failure means.
EndOfInputs host_failed(const std::optional<UserError>& failure);

// What both sides must agree on at a point: digests as kept in the log (0 where not asked for).
struct EpochDigests {
  uint64_t registers = 0;
  uint64_t devices = 0;
  std::optional<uint64_t> memory;
  bool operator==(const EpochDigests&) const = default;
};

// The end of an epoch: no input, but a place where states are compared. The live source asks for
// it, a log says what was seen there: in one check of the trace, and one of the state.
struct EpochCheck {
  hv::ExecutionPoint point;
  uint64_t epoch = 0;
  bool with_memory = false;
  std::optional<EpochDigests> expected;
  std::optional<Bytes> expected_trace = std::nullopt;  // an encoded ipt::EpochDigest
};

using Next = std::variant<StampedInput, EpochCheck, EndOfInputs>;

class InputSource {
 public:
  virtual ~InputSource() = default;
  // The next input. May run the machine to find it (the live source does: its point is "here").
  virtual Next next(hv::Machine& machine) = 0;
  // Of the point that next() gave last, from a log whose recording side could not count
  // instructions: see tie_of() in landing.h.
  virtual std::optional<uint32_t> tie() const { return std::nullopt; }
};

}  // namespace us::replay
