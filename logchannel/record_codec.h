// Records to bytes and back. Positions and clocks are coded against the records before them, so
// encoder and decoder keep the same state and must see the same records in the same order.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "logchannel/record.h"

namespace us::log {

// Record header: first byte is the type with kFlagsFollow when a flags byte comes next.
constexpr uint8_t kFlagsFollow = 0x80;
enum RecordFlags : uint8_t {
  kRecordSkippable = 1,
  kRecordVcpu = 2,  // the body begins with the vCPU's id; without it, vCPU 0
};
constexpr uint8_t kRecordFlagsKnown = kRecordSkippable | kRecordVcpu;

constexpr size_t kRipSlots = 60;

// One vCPU's position, as last coded, and the addresses it was lately at.
struct PointState {
  Position last;
  uint64_t last_instructions = 0;  // last known; `last` may not know
  uint64_t last_kernel_rip = 0xffffffff80000000;
  uint64_t last_user_rip = 0;
  std::array<uint64_t, kRipSlots> rips{};  // a ring, newest at next_slot - 1
  uint8_t next_slot = 0;
  uint8_t used_slots = 0;
};

struct CodecState {
  PointState point;
  Anchor anchor;
  uint64_t tsc_step = 0;  // between the last two anchors
  uint64_t request = 0;
  uint64_t epoch = 0;
  uint64_t devices = 0;  // device digest last coded
};

// The order that positions keep, whether or not the codec starts afresh in between.
class PositionOrder {
 public:
  // False: this position lies before an earlier one of its vCPU.
  bool admit(uint32_t vcpu, const Position& at);

 private:
  struct Floor {
    uint64_t branches = 0;
    uint64_t instructions = 0;
  };
  std::vector<Floor> floors_;
};

class RecordEncoder {
 public:
  // Forgets what was coded before. The decoder must do so at the same record.
  void start_afresh();
  // Appends the record to `out`. Precondition: within_bounds(record), positions in order.
  void encode(const Record& record, Bytes& out);

 private:
  CodecState state_;
  std::vector<PointState> others_;  // points of vCPUs 1.. where there are such
  PositionOrder order_;
};

enum class RecordError : uint8_t {
  kTruncated,    // the record runs past its frame
  kUnknownType,  // and not skippable
  kUnknownFlags,
  kLengthPastBound,
  kMalformed,   // the body does not parse, or has bytes left over, or breaks a bound
  kOutOfOrder,  // its position lies before an earlier record's
};
const char* describe(RecordError error);

class RecordDecoder {
 public:
  void start_afresh();
  // The next record of `in`; nothing at its end. Unknown skippable records come out as Unknown.
  Result<std::optional<Record>, RecordError> decode(ByteReader& in);

  // Of the record that failed or came last, for messages.
  uint8_t last_type() const { return last_type_; }

 private:
  bool decode_body(uint8_t type, uint8_t flags, ByteReader& in, Record& record);

  CodecState state_;
  std::vector<PointState> others_;
  PositionOrder order_;
  uint8_t last_type_ = 0;
};

}  // namespace us::log
