// What enters a machine from outside, and what leaves it. A machine is a function of its inputs and
// the points where they were applied; hv knows nothing of where they come from or go to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/bytes.h"
#include "base/types.h"
#include "hv/core/clock.h"

namespace us::hv {

// --- Inputs
// ---------------------------------------------------------------------------------------

// The clock's next anchor; timers whose deadline it passes fire.
struct AnchorInput {
  ClockAnchor anchor;
};
// A frame arrived for network device `device` (its index among the net devices).
struct FrameInput {
  uint8_t device = 0;
  Bytes frame;
};
// The disk request `request` of disk `device` is done. `data` only for reads; `ok` false: I/O
// error.
struct DiskDoneInput {
  uint8_t device = 0;
  uint32_t request = 0;
  bool ok = true;
  Bytes data;
  // Where in the disk's image the data still is, and stays unless somebody else changes it: a log
  // may keep this instead of the data.
  std::optional<uint64_t> image_offset = std::nullopt;
};
// Bytes typed on console `device` (0: the serial port, 1: the virtio console).
struct ConsoleInput {
  uint8_t device = 0;
  Bytes bytes;
};
enum class Command : uint8_t {
  kPowerButton = 1,  // ACPI power button: asks the guest to shut down
  kCheckpoint =
      2,  // processor caches and TLB are dropped here on both sides (a snapshot was taken)
  kNmi = 3,
};
struct CommandInput {
  Command command = Command::kPowerButton;
};

using Input = std::variant<AnchorInput, FrameInput, DiskDoneInput, ConsoleInput, CommandInput>;

// --- Outputs
// --------------------------------------------------------------------------------------

enum class DiskOp : uint8_t { kRead = 0, kWrite = 1, kFlush = 2, kDiscard = 3, kWriteZeroes = 4 };

struct DiskRequest {
  uint8_t device = 0;
  uint32_t request = 0;  // unique among this disk's requests in flight; counts up from 0
  DiskOp op = DiskOp::kRead;
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;  // bytes; for writes equal to data.size()
  Bytes data;           // writes only: a private copy (bounce buffer)
};

// Where a machine's outputs go. Called on the vCPU thread at the point that produced the output.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  virtual void frame(uint8_t device, Bytes frame) = 0;
  // Must later be answered by exactly one DiskDoneInput. Requests in flight may overlap: the sink
  // completes overlapping ones as if run in the order submitted, a flush after all before it.
  virtual void disk(DiskRequest request) = 0;
  virtual void console(uint8_t device, ByteSpan bytes) = 0;
  // Takes what comes but should get no more for now: the machine must not run on. Any thread.
  virtual bool full() const { return false; }
};

}  // namespace us::hv
