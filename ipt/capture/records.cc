#include "ipt/capture/records.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <linux/perf_event.h>

#include "ipt/epoch_digest.h"

namespace us::ipt {
namespace {

constexpr size_t kAlignment = 8;
// The part of a record that is looked at: an AUX record's, without what sample_id_all adds.
constexpr size_t kLookedAt = 32;
constexpr size_t kAuxRecordBytes = 32, kLostRecordBytes = 24;
// Flags that are no loss: the format of another maker's trace (PERF_AUX_FLAG_PMU_FORMAT_TYPE_MASK).
constexpr uint64_t kKernelLoss = 15, kHarmless = 0xff00;

using Head = std::array<uint8_t, kLookedAt>;

template <class T>
T at(const Head& record, size_t offset) {
  T value;
  std::memcpy(&value, record.data() + offset, sizeof value);
  return value;
}

void copy_out(ByteSpan ring, uint64_t position, size_t bytes, uint8_t* out) {
  const size_t start = position & (ring.size() - 1);
  const size_t first = std::min(bytes, ring.size() - start);
  std::memcpy(out, ring.data() + start, first);
  std::memcpy(out + first, ring.data(), bytes - first);
}

void read_aux(const Head& record, size_t size, uint64_t aux_bytes, RecordSummary& out) {
  if (size < kAuxRecordBytes) {
    out.loss |= loss_flag::kBadRecord;
    return;
  }
  const auto offset = at<uint64_t>(record, 8), bytes = at<uint64_t>(record, 16),
             flags = at<uint64_t>(record, 24);
  ++out.aux_records;
  out.loss |= static_cast<uint32_t>(flags & kKernelLoss);
  if ((flags & ~(kKernelLoss | kHarmless)) != 0) out.loss |= loss_flag::kBadRecord;
  if (offset != out.aux_end || bytes > aux_bytes) out.loss |= loss_flag::kBadRecord;
  out.aux_end = offset + bytes;
}

void read_one(const Head& record, size_t size, uint64_t aux_bytes, RecordSummary& out) {
  ++out.records;
  switch (at<uint32_t>(record, 0)) {
    case PERF_RECORD_AUX: return read_aux(record, size, aux_bytes, out);
    case PERF_RECORD_ITRACE_START: out.started = true; return;
    case PERF_RECORD_LOST:
      out.loss |= loss_flag::kRecordsLost;
      if (size >= kLostRecordBytes) out.lost_records += at<uint64_t>(record, 16);
      return;
    case PERF_RECORD_THROTTLE: out.loss |= loss_flag::kThrottled; return;
    default: return;  // scheduling, mappings, ...: nothing that a trace loses by
  }
}

}  // namespace

RecordSummary read_records(ByteSpan ring, uint64_t tail, uint64_t head, uint64_t aux_end_before,
                           uint64_t aux_bytes) {
  RecordSummary out;
  out.aux_end = aux_end_before;
  if (!std::has_single_bit(ring.size()) || head - tail > ring.size()) {
    out.loss |= loss_flag::kBadRecord;
    return out;
  }
  while (tail != head) {
    const uint64_t left = head - tail;
    Head record{};
    perf_event_header header{};
    if (left >= sizeof header)
      copy_out(ring, tail, sizeof header, reinterpret_cast<uint8_t*>(&header));
    if (header.size < sizeof header || header.size > left || header.size % kAlignment != 0) {
      out.loss |= loss_flag::kBadRecord;
      break;
    }
    copy_out(ring, tail, std::min<size_t>(header.size, kLookedAt), record.data());
    read_one(record, header.size, aux_bytes, out);
    tail += header.size;
  }
  return out;
}

}  // namespace us::ipt
