#include "replay-engine/recorder.h"

#include "replay-engine/epoch_digests.h"
#include "replay-engine/record_convert.h"

namespace us::replay {
namespace {

log::EndReason reason_of(EndKind kind) {
  switch (kind) {
    case EndKind::kGuestPoweredOff:
    case EndKind::kGuestReset:
    case EndKind::kDebugExit: return log::EndReason::kGuestPoweredOff;
    case EndKind::kGuestFailed: return log::EndReason::kGuestFailed;
    case EndKind::kStoppedByUser: return log::EndReason::kStoppedByUser;
    case EndKind::kTimeLimit: return log::EndReason::kTimeLimit;
    case EndKind::kSizeLimit: return log::EndReason::kSizeLimit;
    case EndKind::kDiskFull: return log::EndReason::kDiskFull;
    default: return log::EndReason::kOther;
  }
}

}  // namespace

Recorder::Recorder(log::LogSink& sink, std::function<bool()> limit_reached, Witness* witness)
    : sink_(sink),
      limit_reached_(std::move(limit_reached)),
      witness_(witness != nullptr && witness->checks() ? witness : nullptr) {}

bool Recorder::append(hv::Machine& machine, log::Record record, EndOfInputs& why) {
  // Looked at before, not after: a record in the log is always applied, or replay would go one step
  // further than this run did.
  if (limit_reached_ && limit_reached_()) {
    why = {EndKind::kSizeLimit, "the log has reached its size limit"};
    return false;
  }
  add_tie(machine, record.at);
  sink_.append(record);
  ++records_;
  if (const Status status = sink_.status(); !status.ok()) {
    why = {EndKind::kDiskFull, status.error().text()};
    return false;
  }
  return true;
}

bool Recorder::before_apply(hv::Machine& machine, const StampedInput& input, EndOfInputs& why) {
  return append(machine, to_record(input), why);
}

bool Recorder::at_epoch(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) {
  ++epochs_;
  if (witness_ != nullptr && !append_trace(machine, check, why)) return false;
  return append(machine, to_record(check, epoch_digests(machine, check.with_memory)), why);
}

// Before the state's digests: where both differ, the path says more.
bool Recorder::append_trace(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) {
  const ipt::EpochDigest digest = witness_->cut(check.epoch);
  ++traced_.epochs;
  if (digest.loss.any()) {
    ++traced_.unknown;
  } else if (!digest.counter_agrees()) {
    ++traced_.counter_mismatches;
  }
  return append(machine, to_record(check, digest), why);
}

void Recorder::add_section(std::string_view name, ByteSpan data) {
  for (log::Section& part : log::split_section(name, data)) {
    sink_.append({.at = {}, .body = std::move(part)});
    ++records_;
  }
}

void Recorder::finish(hv::Machine& machine, const EndOfInputs& end) {
  final_digest_ = machine.whole_digest();
  const hv::ExecutionPoint point = machine.point();
  log::Record record{.at = {.branches = point.branches.value,
                            .rip = point.rip,
                            .rcx = std::nullopt,
                            .instructions = point.instructions.value,
                            .tie = std::nullopt},
                     .body = log::End{.reason = reason_of(end.kind),
                                      .final_digest = final_digest_,
                                      .instructions = point.instructions.value,
                                      .branches = point.branches.value,
                                      .guest_ticks = machine.now().value,
                                      .epochs = epochs_,
                                      .records = records_,
                                      .text = end.detail.substr(0, log::kTextBytesMax)}};
  add_tie(machine, record.at);
  sink_.append(record);
  ++records_;
}

}  // namespace us::replay
