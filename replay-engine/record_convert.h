// Between the machine's inputs and the log's records.
#pragma once

#include "base/result.h"
#include "ipt/epoch_digest.h"
#include "logchannel/record.h"
#include "replay-engine/source.h"

namespace us::replay {

// Bytes kept of each digest: a wrong epoch slips through once in 2^32.
constexpr uint8_t kDigestWidth = 4;

// What tells the machine's place apart from others of the same branch count and address, where its
// processor does not count instructions; no effect where it does.
void add_tie(hv::Machine& machine, log::Position& at);

log::Record to_record(const StampedInput& input);
log::Record to_record(const EpochCheck& check, const EpochDigests& seen);
log::Record to_record(const EpochCheck& check, const ipt::EpochDigest& trace);

// The input or check that a record stands for; empty for records that are neither (sections,
// markers, end). `ok` false: the record's content makes no sense for a machine.
struct FromRecord {
  bool ok = true;
  std::optional<Next> next;
};
FromRecord from_record(log::Record record);

}  // namespace us::replay
