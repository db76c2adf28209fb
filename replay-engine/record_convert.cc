#include "replay-engine/record_convert.h"

#include "base/crc32c.h"
#include "base/overloaded.h"
#include "replay-engine/landing.h"

namespace us::replay {
namespace {

log::Position position_of(const hv::ExecutionPoint& point) {
  log::Position at{.branches = point.branches.value,
                   .rip = point.rip,
                   .rcx = std::nullopt,
                   .instructions = point.instructions.value,
                   .tie = std::nullopt};
  // With exact instruction counts nothing else is needed to tell points apart.
  if (point.instructions.value == 0) at.rcx = point.rcx;
  return at;
}

hv::ExecutionPoint point_of(const log::Position& at) {
  return {Branches(at.branches), at.rip, at.rcx.value_or(0), Instructions(at.instructions)};
}

log::Body body_of(const hv::Input& input) {
  return std::visit(Overloaded{
                        [](const hv::AnchorInput& in) -> log::Body {
                          return log::Anchor{in.anchor.branches.value, in.anchor.tsc.value,
                                             in.anchor.ticks_per_branch_q32,
                                             in.anchor.tsc_ceiling.value};
                        },
                        [](const hv::FrameInput& in) -> log::Body {
                          return log::NetFrame{in.device, in.frame};
                        },
                        [](const hv::DiskDoneInput& in) -> log::Body {
                          log::DiskDone done{.device = in.device, .request = in.request};
                          if (!in.ok) {
                            done.outcome = log::DiskOutcome::kFailed;
                          } else if (in.image_offset && !in.data.empty()) {
                            done.outcome = log::DiskOutcome::kReRead;
                            done.offset = *in.image_offset;
                            done.length = in.data.size();
                            done.data_crc = crc32c(in.data);
                          } else if (!in.data.empty()) {
                            done.outcome = log::DiskOutcome::kData;
                            done.data = in.data;
                          }
                          return done;
                        },
                        [](const hv::ConsoleInput& in) -> log::Body {
                          return log::Console{in.device, in.bytes};
                        },
                        [](const hv::CommandInput& in) -> log::Body {
                          return log::Command{static_cast<uint8_t>(in.command), 0};
                        },
                    },
                    input);
}

std::optional<hv::Input> input_of(log::Body& body, bool& ok) {
  if (auto* anchor = std::get_if<log::Anchor>(&body))
    return hv::AnchorInput{{Branches(anchor->branches), GuestTsc(anchor->tsc),
                            anchor->ticks_per_branch_q32, GuestTsc(anchor->tsc_ceiling)}};
  if (auto* frame = std::get_if<log::NetFrame>(&body))
    return hv::FrameInput{frame->device, std::move(frame->frame)};
  if (auto* done = std::get_if<log::DiskDone>(&body)) {
    if (done->outcome == log::DiskOutcome::kReRead) ok = false;  // resolved before it comes here
    return hv::DiskDoneInput{done->device, done->request,
                             done->outcome != log::DiskOutcome::kFailed, std::move(done->data)};
  }
  if (auto* console = std::get_if<log::Console>(&body))
    return hv::ConsoleInput{console->device, std::move(console->bytes)};
  if (auto* command = std::get_if<log::Command>(&body)) {
    if (command->code < 1 || command->code > 3) ok = false;
    return hv::CommandInput{static_cast<hv::Command>(command->code)};
  }
  return std::nullopt;
}

}  // namespace

void add_tie(hv::Machine& machine, log::Position& at) {
  if (machine.vcpu().caps().counts_instructions) return;
  at.rcx = machine.point().rcx;
  at.tie = tie_of(machine);
}

log::Record to_record(const StampedInput& input) {
  return {.at = position_of(input.point), .body = body_of(input.input)};
}

log::Record to_record(const EpochCheck& check, const EpochDigests& seen) {
  return {.at = position_of(check.point),
          .body = log::StateDigest{.epoch = check.epoch,
                                   .width = kDigestWidth,
                                   .registers = seen.registers,
                                   .devices = seen.devices,
                                   .memory = seen.memory}};
}

log::Record to_record(const EpochCheck& check, const ipt::EpochDigest& trace) {
  ByteWriter blob;
  trace.encode(blob);
  return {.at = position_of(check.point), .body = log::PtDigest{check.epoch, blob.take()}};
}

FromRecord from_record(log::Record record) {
  const hv::ExecutionPoint point = point_of(record.at);
  if (auto* trace = std::get_if<log::PtDigest>(&record.body)) {
    return {.next = EpochCheck{.point = point,
                               .epoch = trace->epoch,
                               .with_memory = false,
                               .expected = {},
                               .expected_trace = std::move(trace->blob)}};
  }
  if (const auto* digest = std::get_if<log::StateDigest>(&record.body)) {
    return {.next = EpochCheck{
                .point = point,
                .epoch = digest->epoch,
                .with_memory = digest->memory.has_value(),
                .expected = EpochDigests{digest->registers, digest->devices, digest->memory}}};
  }
  // A place to go to. Not only a courtesy: the primary's outputs up to here left unacknowledged, so
  // a secondary that is entitled by this record must have them in its history.
  if (const auto* marker = std::get_if<log::Marker>(&record.body);
      marker != nullptr && marker->kind == log::MarkerKind::kGoLive)
    return {.next = EpochCheck{.point = point, .epoch = 0, .with_memory = false, .expected = {}}};
  FromRecord result;
  if (auto input = input_of(record.body, result.ok))
    result.next = StampedInput{point, std::move(*input)};
  return result;
}

}  // namespace us::replay
