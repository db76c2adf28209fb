// perf's ring of records, as far as a trace needs it. The ring is the kernel's, so nothing in it is
// trusted: sizes and positions are checked before anything is read. perf_event_open(2), "MMAP
// layout".
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"

namespace us::ipt {

struct RecordSummary {
  uint32_t loss = 0;     // loss_flag
  bool started = false;  // PERF_RECORD_ITRACE_START: the event had its hardware
  uint64_t records = 0;
  uint64_t aux_records = 0;
  uint64_t lost_records = 0;  // as PERF_RECORD_LOST counts them
  uint64_t aux_end = 0;       // where the last AUX record's bytes ended; `aux_end_before` if none
};

// Reads the records in [tail, head), both counted since the ring was made; `ring` is a power of two
// in size. What cannot be a record ends the reading and is a loss. AUX records follow one another
// without a gap, the first after `aux_end_before`, and none is longer than `aux_bytes`: anything
// else is a loss too.
RecordSummary read_records(ByteSpan ring, uint64_t tail, uint64_t head, uint64_t aux_end_before,
                           uint64_t aux_bytes);

}  // namespace us::ipt
