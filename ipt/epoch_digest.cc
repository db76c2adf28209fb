#include "ipt/epoch_digest.h"

#include <fmt/format.h>
#include <utility>

namespace us::ipt {
namespace {

constexpr uint8_t kHasFirstIp = 1;
constexpr uint8_t kHasLastIp = 2;
constexpr uint8_t kLinear = 4;
constexpr uint8_t kCutPacket = 8;
constexpr uint8_t kHasFirstMode = 16;
constexpr uint8_t kKnownFlags = kHasFirstIp | kHasLastIp | kLinear | kCutPacket | kHasFirstMode;

// Together with the bound on blocks these keep every item number below 2^60.
constexpr uint64_t kMaxItemsPerLeaf = 1u << 20;
constexpr uint8_t kMaxLeavesLog2 = 36;

void encode_position(ByteWriter& out, const EpochPosition& position) {
  out.put_varint(position.branches);
  out.put(position.rip);
  out.put_varint(position.rcx);
}

EpochPosition decode_position(ByteReader& in) {
  EpochPosition position;
  position.branches = in.get_varint();
  position.rip = in.get<uint64_t>();
  position.rcx = in.get_varint();
  return position;
}

// A varint that has to fit 32 bits: cut off, a count of losses could turn into none.
uint32_t get_u32(ByteReader& in) {
  const uint64_t value = in.get_varint();
  if (value > UINT32_MAX) in.fail();
  return static_cast<uint32_t>(value);
}

void encode_stream(ByteWriter& out, const StreamDigest& stream) {
  out.put_varint(stream.items);
  out.put_varint(stream.items_per_leaf);
  out.put(stream.leaves_per_block_log2);
  out.put(stream.digest.low);
  out.put(stream.digest.high);
  out.put(static_cast<uint8_t>(stream.blocks.size()));
  for (const uint64_t block : stream.blocks) out.put(block);
}

// Blocks that `items` items must have, so that a comparison can trust them.
uint64_t blocks_of(const StreamDigest& stream) {
  const uint64_t leaves =
      stream.items / stream.items_per_leaf + (stream.items % stream.items_per_leaf != 0 ? 1 : 0);
  const uint64_t last = leaves == 0 ? 0 : ((leaves - 1) >> stream.leaves_per_block_log2) + 1;
  return last;
}

bool decode_stream(ByteReader& in, StreamDigest& stream) {
  stream.items = in.get_varint();
  const uint64_t items_per_leaf = in.get_varint();
  stream.leaves_per_block_log2 = in.get<uint8_t>();
  stream.digest.low = in.get<uint64_t>();
  stream.digest.high = in.get<uint64_t>();
  const uint8_t blocks = in.get<uint8_t>();
  if (in.failed()) return true;
  if (items_per_leaf == 0 || items_per_leaf > kMaxItemsPerLeaf) return false;
  if (stream.leaves_per_block_log2 > kMaxLeavesLog2 || blocks > StreamHasher::kMaxBlocks)
    return false;
  stream.items_per_leaf = static_cast<uint32_t>(items_per_leaf);
  if (blocks_of(stream) != blocks) return false;
  stream.blocks.resize(blocks);
  for (uint64_t& block : stream.blocks) block = in.get<uint64_t>();
  return true;
}

const char* item_name(Stream stream) {
  switch (stream) {
    case Stream::kBranches: return "branches";
    case Stream::kTargets: return "targets";
    case Stream::kAsync: return "events";
    case Stream::kAddressSpaces: return "CR3 writes";
    case Stream::kModes: return "modes";
  }
  return "items";
}

}  // namespace

std::string_view name_of(Stream stream) {
  constexpr std::array<std::string_view, kStreams> kNames = {"T", "I", "A", "C", "E"};
  return kNames[static_cast<size_t>(stream)];
}

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kEqual: return "equal";
    case Verdict::kDiffers: return "differs";
    case Verdict::kUnknown: return "unknown";
    case Verdict::kCounterMismatch: return "counter-mismatch";
    case Verdict::kIncomparable: return "incomparable";
  }
  return "?";
}

Digest EpochDigest::combined() const {
  ByteWriter all;
  all.put(version);
  all.put(setup.config);
  all.put(static_cast<uint8_t>(setup.linear_addresses));
  for (const StreamDigest& one : streams) {
    all.put(one.items);
    all.put(one.digest.low);
    all.put(one.digest.high);
  }
  return digest_of(all.bytes());
}

void EpochDigest::encode(ByteWriter& out) const {
  out.put(version);
  uint8_t flags = 0;
  if (first_ip) flags |= kHasFirstIp;
  if (last_ip) flags |= kHasLastIp;
  if (first_mode) flags |= kHasFirstMode;
  if (setup.linear_addresses) flags |= kLinear;
  if (loss.cut_packet) flags |= kCutPacket;
  out.put(flags);
  out.put_varint(setup.config);
  out.put_varint(setup.errata);
  out.put_varint(bounds.epoch);
  encode_position(out, bounds.start);
  encode_position(out, bounds.end);
  out.put_varint(loss.overflows);
  out.put_varint(loss.errors);
  out.put_varint(loss.aux_flags);
  out.put_varint(loss.skipped_bytes);
  if (first_ip) out.put(*first_ip);
  if (last_ip) out.put(*last_ip);
  if (first_mode) out.put(*first_mode);
  for (const StreamDigest& one : streams) encode_stream(out, one);
}

Result<EpochDigest, DigestDecodeError> decode_epoch_digest(ByteReader& in) {
  EpochDigest out;
  out.version = in.get<uint16_t>();
  const uint8_t flags = in.get<uint8_t>();
  if (in.failed()) return DigestDecodeError::kTruncated;
  if (out.version != kNormalFormVersion || (flags & ~kKnownFlags) != 0) {
    return DigestDecodeError::kUnknownVersion;
  }
  out.setup.linear_addresses = (flags & kLinear) != 0;
  out.loss.cut_packet = (flags & kCutPacket) != 0;
  out.setup.config = in.get_varint();
  out.setup.errata = get_u32(in);
  out.bounds.epoch = in.get_varint();
  out.bounds.start = decode_position(in);
  out.bounds.end = decode_position(in);
  out.loss.overflows = get_u32(in);
  out.loss.errors = get_u32(in);
  out.loss.aux_flags = get_u32(in);
  out.loss.skipped_bytes = in.get_varint();
  if ((flags & kHasFirstIp) != 0) out.first_ip = in.get<uint64_t>();
  if ((flags & kHasLastIp) != 0) out.last_ip = in.get<uint64_t>();
  if ((flags & kHasFirstMode) != 0) out.first_mode = in.get<uint8_t>();
  for (StreamDigest& one : out.streams) {
    if (!decode_stream(in, one)) return DigestDecodeError::kOutOfBounds;
  }
  if (in.failed()) return DigestDecodeError::kTruncated;
  return out;
}

std::string_view TraceLoss::reason() const {
  struct Named {
    uint32_t flag;
    std::string_view text;
  };
  // What makes others follow comes first.
  static constexpr Named kNames[] = {
      {loss_flag::kNotTraced, "the trace event had no hardware"},
      {loss_flag::kTruncated, "the trace buffer was full"},
      {loss_flag::kOverwritten, "trace was overwritten"},
      {loss_flag::kCollision, "somebody else used the trace hardware"},
      {loss_flag::kPartial, "the trace has gaps"},
      {loss_flag::kRecordsLost, "perf lost records"},
      {loss_flag::kThrottled, "perf throttled the trace event"},
      {loss_flag::kBadRecord, "perf's records make no sense"},
      {loss_flag::kBadPosition, "perf's buffer position makes no sense"},
      {loss_flag::kSinkRefused, "there was no room for the trace"},
      {loss_flag::kBadPackets, "the trace's packets make no sense"}};
  for (const Named& name : kNames)
    if ((aux_flags & name.flag) != 0) return name.text;
  if (aux_flags != 0) return "the capture was flagged";
  if (overflows != 0) return "the processor's trace buffer overflowed";
  if (errors != 0 || skipped_bytes != 0) return "the trace is damaged";
  return cut_packet ? "the trace ends within a packet" : "";
}

std::optional<Stream> Comparison::first_stream() const {
  for (size_t i = 0; i < kStreams; ++i) {
    if (differences[i]) return static_cast<Stream>(i);
  }
  return std::nullopt;
}

std::string Comparison::text() const {
  std::string out{name_of(verdict)};
  if (mismatch_a || mismatch_b) {
    out += fmt::format(" ({})", mismatch_a && mismatch_b ? "both"
                                : mismatch_a             ? "first"
                                                         : "second");
  }
  if (!unknown_because.empty()) out += fmt::format(" ({})", unknown_because);
  const char* separator = ": ";
  for (size_t i = 0; i < kStreams; ++i) {
    if (!differences[i]) continue;
    const auto stream = static_cast<Stream>(i);
    const StreamDifference& at = *differences[i];
    out += fmt::format("{}{} block {} ({} {}..{})", separator, name_of(stream), at.block,
                       item_name(stream), at.first_item, at.end_item == 0 ? 0 : at.end_item - 1);
    separator = ", ";
  }
  if (start_differs) out += fmt::format("{}start address", std::exchange(separator, ", "));
  if (end_differs) out += fmt::format("{}end address", std::exchange(separator, ", "));
  return out;
}

Comparison compare(const EpochDigest& a, const EpochDigest& b) {
  Comparison out;
  bool same_grouping = true;
  for (size_t i = 0; i < kStreams; ++i) {
    same_grouping = same_grouping && a.streams[i].items_per_leaf == b.streams[i].items_per_leaf;
  }
  if (a.version != b.version || a.setup != b.setup || a.bounds.epoch != b.bounds.epoch ||
      !(a.bounds.start == b.bounds.start) || !same_grouping) {
    out.verdict = Verdict::kIncomparable;
    return out;
  }
  if (a.loss.any() || b.loss.any()) {
    out.verdict = Verdict::kUnknown;
    out.unknown_because = fmt::format("{}: {}", a.loss.any() ? "first" : "second",
                                      a.loss.any() ? a.loss.reason() : b.loss.reason());
    return out;
  }
  bool differs = false;
  const bool modes_known = a.first_mode && b.first_mode;
  for (size_t i = 0; i < kStreams; ++i) {
    if (static_cast<Stream>(i) == Stream::kModes && !modes_known) continue;
    out.differences[i] = first_difference(a.streams[i], b.streams[i]);
    differs = differs || out.differences[i].has_value();
  }
  out.start_differs = (a.first_ip && b.first_ip && *a.first_ip != *b.first_ip) ||
                      (modes_known && *a.first_mode != *b.first_mode);
  out.end_differs =
      !(a.bounds.end == b.bounds.end) || (a.last_ip && b.last_ip && *a.last_ip != *b.last_ip);
  differs = differs || out.start_differs || out.end_differs;
  out.mismatch_a = !a.counter_agrees();
  out.mismatch_b = !b.counter_agrees();
  // A mismatch comes first: it may well be why the rest differs.
  if (out.mismatch_a || out.mismatch_b) {
    out.verdict = Verdict::kCounterMismatch;
  } else if (differs) {
    out.verdict = Verdict::kDiffers;
  }
  return out;
}

}  // namespace us::ipt
