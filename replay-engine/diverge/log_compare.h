// Two logs held against one another, without executing anything.
#pragma once

#include <optional>

#include "base/result.h"
#include "ipt/epoch_digest.h"
#include "replay-engine/diverge/report.h"
#include "replay-engine/diverge/side.h"

namespace us::replay {

struct DigestDifference {
  uint64_t epoch = 0;
  hv::ExecutionPoint at;
  std::string differs;  // "registers, memory"
};

// A log that cannot be read past a place.
struct LogDamage {
  bool in_a = false;
  uint64_t after_epoch = 0;  // the last one read
  UserError error;
};

struct LogComparison {
  uint64_t epochs = 0;  // that both logs have, up to the first difference of inputs
  std::optional<InputDifference> input;
  std::optional<DigestDifference> digest;  // the first
  std::optional<LogDamage> damage;
  TraceFinding trace;
  LogContext context_a, context_b;  // around `input`
  std::optional<log::End> end_a, end_b;
  std::vector<std::string> notes;  // that the logs hold, such as why a secondary kept one
};

constexpr size_t kContextBefore = 20, kContextAfter = 5;  // records

// Errors: those of opening either log.
Result<LogComparison> compare_logs(const Side& a, const Side& b);

// Adds the comparison of one epoch's traces; null: that side's digest cannot be read.
void note_trace(uint64_t epoch, const ipt::EpochDigest* a, const ipt::EpochDigest* b,
                TraceFinding& found);

// The records around the end of an epoch, that of its digest marked.
LogContext log_context(const Side& side, uint64_t epoch);

}  // namespace us::replay
