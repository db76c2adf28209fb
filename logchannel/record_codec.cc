#include "logchannel/record_codec.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "logchannel/anchor_codec.h"
#include "logchannel/point_codec.h"
#include "logchannel/small_buffer.h"

namespace us::log {
namespace {

// State digest control byte.
enum DigestBits : uint8_t {
  kDigestNextEpoch = 1,    // epoch is the last one plus 1
  kDigestSameDevices = 2,  // device digest as last time
  kDigestMemory = 4,
  kDigestNarrow = 8,  // 4 bytes a digest instead of 8
};
constexpr uint8_t kDigestBitsKnown = 15;

ByteSpan as_bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

Bytes rest_of(ByteReader& in) {
  const ByteSpan rest = in.get_span(in.remaining());
  return {rest.begin(), rest.end()};
}

std::string rest_as_text(ByteReader& in) {
  const ByteSpan rest = in.get_span(in.remaining());
  return {reinterpret_cast<const char*>(rest.data()), rest.size()};
}

PointState& point_of(CodecState& state, std::vector<PointState>& others, uint32_t vcpu) {
  if (vcpu == 0) return state.point;
  if (others.size() < vcpu) others.resize(vcpu);
  return others[vcpu - 1];
}

// --- Bodies, after the position: the small part into `out`; what is returned follows it.
// -----------

ByteSpan put(CodecState&, const NetFrame& body, SmallBuffer& out) {
  out.put_byte(body.device);
  return body.frame;
}

ByteSpan put(CodecState& state, const DiskDone& body, SmallBuffer& out) {
  out.put_byte(body.device);
  out.put_byte(static_cast<uint8_t>(body.outcome));
  out.put_varint(zigzag(body.request - state.request));
  state.request = body.request;
  if (body.outcome == DiskOutcome::kReRead) {
    out.put_varint(body.offset);
    out.put_varint(body.length);
    out.put_fixed(body.data_crc, 4);
  }
  return body.data;
}

ByteSpan put(CodecState&, const Console& body, SmallBuffer& out) {
  out.put_byte(body.device);
  return body.bytes;
}

ByteSpan put(CodecState&, const Command& body, SmallBuffer& out) {
  out.put_byte(body.code);
  out.put_varint(body.argument);
  return {};
}

ByteSpan put(CodecState& state, const StateDigest& body, SmallBuffer& out) {
  const bool next = body.epoch == state.epoch + 1;
  const bool same_devices = body.devices == state.devices;
  out.put_byte(static_cast<uint8_t>(
      (next ? kDigestNextEpoch : 0) | (same_devices ? kDigestSameDevices : 0) |
      (body.memory ? kDigestMemory : 0) | (body.width == 4 ? kDigestNarrow : 0)));
  if (!next) out.put_varint(body.epoch);
  out.put_fixed(body.registers, body.width);
  if (!same_devices) out.put_fixed(body.devices, body.width);
  if (body.memory) out.put_fixed(*body.memory, body.width);
  state.epoch = body.epoch;
  state.devices = body.devices;
  return {};
}

ByteSpan put(CodecState&, const PtDigest& body, SmallBuffer& out) {
  out.put_varint(body.epoch);
  return body.blob;
}

ByteSpan put(CodecState&, const Marker& body, SmallBuffer& out) {
  out.put_byte(static_cast<uint8_t>(body.kind));
  out.put_varint(body.id);
  return as_bytes(body.text);
}

ByteSpan put(CodecState&, const Section& body, SmallBuffer& out) {
  out.put_byte(static_cast<uint8_t>(body.name.size()));
  out.put_text(body.name);
  out.put_varint(body.offset);
  out.put_varint(body.total);
  return body.data;
}

ByteSpan put(CodecState&, const End& body, SmallBuffer& out) {
  out.put_byte(static_cast<uint8_t>(body.reason));
  out.put_fixed(body.final_digest.low, 8);
  out.put_fixed(body.final_digest.high, 8);
  out.put_varint(body.instructions);
  out.put_varint(body.branches);
  out.put_varint(body.guest_ticks);
  out.put_varint(body.epochs);
  out.put_varint(body.records);
  return as_bytes(body.text);
}

DiskDone get_disk_done(CodecState& state, ByteReader& in) {
  DiskDone body;
  body.device = in.get<uint8_t>();
  body.outcome = in.get<DiskOutcome>();
  const uint64_t request = state.request + unzigzag(in.get_varint());
  if (request > 0xffffffff) in.fail();
  body.request = static_cast<uint32_t>(request);
  state.request = request;
  if (body.outcome == DiskOutcome::kReRead) {
    body.offset = in.get_varint();
    body.length = in.get_varint();
    body.data_crc = in.get<uint32_t>();
  }
  if (body.outcome == DiskOutcome::kData) body.data = rest_of(in);
  return body;
}

StateDigest get_state_digest(CodecState& state, ByteReader& in) {
  StateDigest body;
  const uint8_t bits = in.get<uint8_t>();
  if ((bits & ~kDigestBitsKnown) != 0) in.fail();
  body.width = (bits & kDigestNarrow) != 0 ? 4 : 8;
  const auto digest = [&in, &body]() -> uint64_t {
    return body.width == 4 ? in.get<uint32_t>() : in.get<uint64_t>();
  };
  body.epoch = (bits & kDigestNextEpoch) != 0 ? state.epoch + 1 : in.get_varint();
  body.registers = digest();
  body.devices = (bits & kDigestSameDevices) != 0 ? state.devices : digest();
  if ((bits & kDigestMemory) != 0) body.memory = digest();
  state.epoch = body.epoch;
  state.devices = body.devices;
  return body;
}

Marker get_marker(ByteReader& in) {
  Marker body;
  body.kind = in.get<MarkerKind>();
  body.id = in.get_varint();
  body.text = rest_as_text(in);
  return body;
}

Section get_section(ByteReader& in) {
  Section body;
  const ByteSpan name = in.get_span(in.get<uint8_t>());
  body.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
  body.offset = in.get_varint();
  body.total = in.get_varint();
  body.data = rest_of(in);
  return body;
}

End get_end(ByteReader& in) {
  End body;
  body.reason = in.get<EndReason>();
  body.final_digest.low = in.get<uint64_t>();
  body.final_digest.high = in.get<uint64_t>();
  body.instructions = in.get_varint();
  body.branches = in.get_varint();
  body.guest_ticks = in.get_varint();
  body.epochs = in.get_varint();
  body.records = in.get_varint();
  body.text = rest_as_text(in);
  return body;
}

// The body after the position, of a known type; nothing for an unknown one.
std::optional<Body> get_known(CodecState& state, uint8_t type, uint64_t branches, ByteReader& in) {
  switch (static_cast<RecordType>(type)) {
    case RecordType::kAnchor: {
      Anchor body;
      if (!decode_anchor(state, branches, in, body)) in.fail();
      return body;
    }
    case RecordType::kNetFrame: {
      const uint8_t device = in.get<uint8_t>();
      return NetFrame{device, rest_of(in)};
    }
    case RecordType::kDiskDone: return get_disk_done(state, in);
    case RecordType::kConsole: {
      const uint8_t device = in.get<uint8_t>();
      return Console{device, rest_of(in)};
    }
    case RecordType::kCommand: {
      const uint8_t code = in.get<uint8_t>();
      return Command{code, in.get_varint()};
    }
    case RecordType::kStateDigest: return get_state_digest(state, in);
    case RecordType::kPtDigest: {
      const uint64_t epoch = in.get_varint();
      return PtDigest{epoch, rest_of(in)};
    }
    case RecordType::kMarker: return get_marker(in);
    case RecordType::kSection: return get_section(in);
    case RecordType::kEnd: return get_end(in);
  }
  return std::nullopt;
}

bool is_known(uint8_t type) {
  return type >= static_cast<uint8_t>(RecordType::kAnchor) &&
         type <= static_cast<uint8_t>(RecordType::kEnd);
}

void append_record(uint8_t type, uint8_t flags, const SmallBuffer& small, ByteSpan tail,
                   Bytes& out) {
  SmallBuffer header;
  header.put_byte(flags != 0 ? type | kFlagsFollow : type);
  if (flags != 0) header.put_byte(flags);
  header.put_varint(small.size() + tail.size());
  const size_t at = out.size();
  out.resize(at + header.size() + small.size() + tail.size());
  uint8_t* to = out.data() + at;
  std::memcpy(to, header.data(), header.size());
  std::memcpy(to + header.size(), small.data(), small.size());
  if (!tail.empty()) {
    std::memcpy(to + header.size() + small.size(), tail.data(), tail.size());
  }
}

}  // namespace

bool PositionOrder::admit(uint32_t vcpu, const Position& at) {
  if (floors_.size() <= vcpu) floors_.resize(vcpu + 1);
  Floor& floor = floors_[vcpu];
  if (at.branches < floor.branches) return false;
  if (at.instructions != 0 && at.instructions < floor.instructions) return false;
  floor.branches = at.branches;
  floor.instructions = std::max(floor.instructions, at.instructions);
  return true;
}

void RecordEncoder::start_afresh() {
  state_ = {};
  others_.clear();
}

void RecordEncoder::encode(const Record& record, Bytes& out) {
  US_CHECK(within_bounds(record), "{} record breaks its bounds", type_name(type_of(record.body)));
  const uint8_t type = type_of(record.body);
  uint8_t flags = record.vcpu != 0 ? kRecordVcpu : 0;
  SmallBuffer small;
  if (const auto* unknown = std::get_if<Unknown>(&record.body)) {
    append_record(type, kRecordSkippable, small, unknown->body, out);
    return;
  }
  // A reader that skips the record must not miss what it would have taught the codec.
  std::optional<CodecState> scratch;
  std::vector<PointState> scratch_others;
  if (record.skippable) {
    flags |= kRecordSkippable;
    scratch.emplace();
  } else {
    US_CHECK(order_.admit(record.vcpu, record.at), "{} record at {} branches lies before another",
             type_name(type), record.at.branches);
  }
  CodecState& state = scratch ? *scratch : state_;
  if (record.vcpu != 0) small.put_varint(record.vcpu);
  encode_point(point_of(state, record.skippable ? scratch_others : others_, record.vcpu), record.at,
               small);
  const ByteSpan tail = std::visit(
      [&](const auto& body) -> ByteSpan {
        using T = std::decay_t<decltype(body)>;
        if constexpr (std::is_same_v<T, Anchor>) {
          encode_anchor(state, record.at.branches, body, small);
          return {};
        } else if constexpr (std::is_same_v<T, Unknown>) {
          return {};
        } else {
          return put(state, body, small);
        }
      },
      record.body);
  append_record(type, flags, small, tail, out);
}

const char* describe(RecordError error) {
  switch (error) {
    case RecordError::kTruncated: return "the record runs past the end of its frame";
    case RecordError::kUnknownType: return "a record type that is unknown and not skippable";
    case RecordError::kUnknownFlags: return "record flags that are unknown";
    case RecordError::kLengthPastBound: return "a record length past the bound";
    case RecordError::kMalformed: return "a record body that does not parse";
    case RecordError::kOutOfOrder: return "a position before that of an earlier record";
  }
  return "?";
}

void RecordDecoder::start_afresh() {
  state_ = {};
  others_.clear();
}

Result<std::optional<Record>, RecordError> RecordDecoder::decode(ByteReader& in) {
  using Out = Result<std::optional<Record>, RecordError>;
  if (in.at_end()) return Out(std::optional<Record>());
  const uint8_t first = in.get<uint8_t>();
  last_type_ = first & kRecordTypeMax;
  const uint8_t flags = (first & kFlagsFollow) != 0 ? in.get<uint8_t>() : 0;
  const uint64_t length = in.get_varint();
  if (in.failed()) return Out(RecordError::kTruncated);
  if ((flags & ~kRecordFlagsKnown) != 0) return Out(RecordError::kUnknownFlags);
  if (length > kRecordBodyMax) return Out(RecordError::kLengthPastBound);
  if (length > in.remaining()) return Out(RecordError::kTruncated);
  const ByteSpan bytes = in.get_span(length);
  Record record;
  record.skippable = (flags & kRecordSkippable) != 0;
  if (!is_known(last_type_)) {
    if (!record.skippable || last_type_ == 0) return Out(RecordError::kUnknownType);
    record.body = Unknown{last_type_, {bytes.begin(), bytes.end()}};
    return Out(std::optional<Record>(std::move(record)));
  }
  ByteReader body(bytes);
  if (!decode_body(last_type_, flags, body, record)) return Out(RecordError::kMalformed);
  if (!record.skippable && !order_.admit(record.vcpu, record.at))
    return Out(RecordError::kOutOfOrder);
  return Out(std::optional<Record>(std::move(record)));
}

bool RecordDecoder::decode_body(uint8_t type, uint8_t flags, ByteReader& in, Record& record) {
  std::optional<CodecState> scratch;
  std::vector<PointState> scratch_others;
  if (record.skippable) scratch.emplace();
  CodecState& state = scratch ? *scratch : state_;
  if ((flags & kRecordVcpu) != 0) {
    const uint64_t vcpu = in.get_varint();
    if (vcpu == 0 || vcpu > kVcpuMax) return false;
    record.vcpu = static_cast<uint32_t>(vcpu);
  }
  PointState& point = point_of(state, record.skippable ? scratch_others : others_, record.vcpu);
  if (!decode_point(point, in, record.at)) return false;
  std::optional<Body> body = get_known(state, type, record.at.branches, in);
  if (!body || in.failed() || !in.at_end()) return false;
  record.body = std::move(*body);
  return within_bounds(record);
}

}  // namespace us::log
