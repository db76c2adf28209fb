#include "replay-engine/log_source.h"

#include "replay-engine/epoch_digests.h"
#include "replay-engine/record_convert.h"

namespace us::replay {
namespace {

constexpr uint64_t kSectionTotalMax = uint64_t{64} << 30;

UserError broken_sections(std::string seen) {
  return {.id = "LOG-021",
          .exit_code = ExitCode::kLogUnreadable,
          .what = "the recording's description of its machine is damaged",
          .seen = std::move(seen),
          .needed = "whole sections before the first input",
          .mend = "record again; `understudy log verify DIR` shows what is left"};
}

EndOfInputs unusable(std::string detail) { return {EndKind::kLogUnusable, std::move(detail)}; }
EndOfInputs unusable(const UserError& error) { return {EndKind::kLogUnusable, error.what, error}; }

std::string hex(uint64_t value) { return fmt::format("{:08x}", value); }

std::string point_text(const hv::ExecutionPoint& p) {
  return fmt::format("branch {} (instruction {}, rip {:#x})", p.branches.value,
                     p.instructions.value, p.rip);
}

}  // namespace

Result<LogOpening> read_opening(log::LogStream& stream) {
  LogOpening opening;
  std::map<std::string, log::SectionJoiner> joiners;
  for (;;) {
    auto record = stream.next();
    if (!record.ok()) return record.error();
    if (!record->has_value()) return opening;
    auto* section = std::get_if<log::Section>(&(*record)->body);
    if (section == nullptr) {
      opening.first = std::move(**record);
      return opening;
    }
    auto [joiner, fresh] = joiners.try_emplace(section->name, kSectionTotalMax);
    const auto state = joiner->second.add(*section);
    if (state == log::SectionJoiner::State::kBroken)
      return broken_sections("section \"" + section->name + "\" has a gap or grows too large");
    if (state == log::SectionJoiner::State::kWhole)
      opening.sections[section->name] = joiner->second.data();
  }
}

LogSource::LogSource(log::LogStream& stream, std::optional<log::Record> first, ReRead re_read)
    : stream_(stream), pending_(std::move(first)), re_read_(std::move(re_read)) {}

Next LogSource::next(hv::Machine&) {
  if (after_landing_) {
    done_ = true;
    return *after_landing_;
  }
  for (;;) {
    if (stop_) return EndOfInputs{EndKind::kStoppedByUser, "stopped on request"};
    if (!pending_) {
      auto record = stream_.next();
      if (!record.ok()) return unusable(record.error());
      if (!record->has_value()) {
        done_ = true;
        return EndOfInputs{EndKind::kLogEnded, stream_.end().reason};
      }
      pending_ = std::move(**record);
    }
    if (stop_at_ && pending_->at.branches >= stop_at_->value) {
      stopped_at_place_ = true;
      return EndOfInputs{EndKind::kStoppedByUser, "the point asked for"};
    }
    log::Record record = std::move(*pending_);
    pending_.reset();
    ++records_;
    position_ = stream_.position();  // nothing was read ahead of it
    tie_ = record.at.tie;
    if (std::holds_alternative<log::End>(record.body)) return end_of_log(std::move(record));
    if (auto bad = resolve(record)) return *bad;
    FromRecord converted = from_record(std::move(record));
    if (!converted.ok) return unusable("a record holds what no machine could have seen");
    if (converted.next) return std::move(*converted.next);
  }
}

// The end record has a point too: the machine runs there first, then the log is over. An epoch
// check without expectations is a place to go to and nothing more.
Next LogSource::end_of_log(log::Record record) {
  const auto& end = std::get<log::End>(record.body);
  EndKind kind = EndKind::kLogEnded;
  switch (end.reason) {
    case log::EndReason::kGuestPoweredOff: kind = EndKind::kGuestPoweredOff; break;
    case log::EndReason::kGuestFailed: kind = EndKind::kGuestFailed; break;
    case log::EndReason::kStoppedByUser: kind = EndKind::kStoppedByUser; break;
    case log::EndReason::kSizeLimit: kind = EndKind::kSizeLimit; break;
    case log::EndReason::kTimeLimit: kind = EndKind::kTimeLimit; break;
    default: break;
  }
  const hv::ExecutionPoint point{Branches(record.at.branches), record.at.rip,
                                 record.at.rcx.value_or(0), Instructions(record.at.instructions)};
  after_landing_ = EndOfInputs{kind, end.text};
  end_record_ = std::move(record);
  return EpochCheck{.point = point, .epoch = 0, .with_memory = false, .expected = {}};
}

std::optional<EndOfInputs> LogSource::resolve(log::Record& record) {
  auto* done = std::get_if<log::DiskDone>(&record.body);
  if (done == nullptr || done->outcome != log::DiskOutcome::kReRead) return std::nullopt;
  if (!re_read_) return unusable("the recording leaves disk data in its image, and none is given");
  auto data = re_read_(done->device, done->offset, done->length, done->data_crc);
  if (!data.ok()) return unusable(data.error());
  done->outcome = log::DiskOutcome::kData;
  done->data = std::move(data).value();
  return std::nullopt;
}

bool Verifier::before_apply(hv::Machine&, const StampedInput& input, EndOfInputs&) {
  if (progress_) progress_(input.point);
  return true;
}

EndOfInputs Verifier::diverged(const EpochCheck& check, const std::string& in) const {
  return {EndKind::kDiverged,
          fmt::format("epoch {} differs in {}\n  last agreeing:   {}\n  first differing: {}",
                      check.epoch, in, point_text(last_agreeing_), point_text(check.point))};
}

// False: the run ends, with `why` filled in. A trace that was lost says nothing: the state's
// digests come next in the log.
bool Verifier::check_trace(const EpochCheck& check, EndOfInputs& why) {
  ByteReader in(*check.expected_trace);
  const auto recorded = ipt::decode_epoch_digest(in);
  const ipt::EpochDigest seen = witness_->cut(check.epoch);
  if (!recorded.ok()) {
    if (recorded.error() == ipt::DigestDecodeError::kUnknownVersion) return ++traced_.unknown, true;
    why = unusable(fmt::format("the trace digest of epoch {} is damaged", check.epoch));
    return false;
  }
  const ipt::Comparison result = ipt::compare(*recorded, seen);
  switch (result.verdict) {
    case ipt::Verdict::kEqual: ++traced_.epochs; return true;
    case ipt::Verdict::kUnknown:
    case ipt::Verdict::kIncomparable: ++traced_.unknown; return true;
    case ipt::Verdict::kDiffers:
      why = diverged(check, "the path taken, stream and block: " + result.text());
      return false;
    case ipt::Verdict::kCounterMismatch: break;
  }
  ++traced_.counter_mismatches;
  const ipt::EpochDigest& wrong = result.mismatch_a ? *recorded : seen;
  const char* side = result.mismatch_a ? result.mismatch_b ? "both sides" : "the recording side"
                                       : "the replaying side";
  const UserError error{
      .id = "IPT-002",
      .exit_code = ExitCode::kDivergence,
      .what = "branch counter and trace do not count the same branches",
      .seen =
          fmt::format("epoch {}, {}: {} in the trace, {} by the counter", check.epoch, side,
                      wrong.branches(), wrong.bounds.end.branches - wrong.bounds.start.branches),
      .needed = "one TNT bit for every conditional branch retired",
      .mend = "one of the two is at fault: calibrate that host again (`understudy calibrate`)"};
  why = {EndKind::kMiscount, fmt::format("{} [{}]: {}", error.what, error.id, error.seen), error};
  return false;
}

bool Verifier::at_epoch(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) {
  if (check.expected_trace && witness_ != nullptr && !check_trace(check, why)) return false;
  if (!check.expected) return true;
  const EpochDigests seen = epoch_digests(machine, check.with_memory);
  if (seen == *check.expected) {
    ++verified_;
    last_agreeing_ = check.point;
    return true;
  }
  std::string differs;
  const auto compare = [&](const char* what, uint64_t recorded, uint64_t now) {
    if (recorded != now)
      differs += fmt::format("{}{} (recorded {}, replayed {})", differs.empty() ? "" : "; ", what,
                             hex(recorded), hex(now));
  };
  compare("registers", check.expected->registers, seen.registers);
  compare("devices", check.expected->devices, seen.devices);
  compare("memory", check.expected->memory.value_or(0), seen.memory.value_or(0));
  why = diverged(check, differs);
  return false;
}

}  // namespace us::replay
