#include "replay-engine/bookmark.h"

#include <cstring>

#include "base/crc32c.h"

namespace us::replay {
namespace {

constexpr uint8_t kMagic[8] = {'U', 'S', 'S', 'A', 'V', 'E', '\r', '\n'};
constexpr size_t kPrefixBytes = sizeof kMagic + 2 * sizeof(uint32_t);  // magic, version, length
constexpr size_t kBodyBytes = 16 + 2 * 8 + 2 * 4 * 8;
constexpr size_t kTailBytes = sizeof(uint32_t);  // CRC-32C of all before it

UserError damaged(std::string seen) {
  return {.id = "SNAP-003",
          .exit_code = ExitCode::kLogUnreadable,
          .what = "the saved replay is damaged",
          .seen = std::move(seen),
          .needed = "the file as it was written, to its end",
          .mend = "save it again: `understudy replay DIR --goto N --save FILE`"};
}

UserError other_version(uint32_t seen) {
  return {.id = "SNAP-002",
          .exit_code = ExitCode::kLogUnreadable,
          .what = "the saved replay has another format version",
          .seen = fmt::format("version {}", seen),
          .needed = fmt::format("version {}", kBookmarkVersion),
          .mend = "go on with the build that saved it, or save it again with this one"};
}

UserError no_saved_replay() {
  return {.id = "SNAP-001",
          .exit_code = ExitCode::kLogUnreadable,
          .what = "this is no saved replay",
          .seen = "another beginning",
          .needed = "a file that starts with USSAVE",
          .mend = "give the file that `understudy replay --save` wrote"};
}

UserError other_log(std::string seen, const Bookmark& bookmark) {
  return {.id = "SNAP-006",
          .exit_code = ExitCode::kIncompatible,
          .what = "the recording is not as it was when the replay was saved",
          .seen = std::move(seen),
          .needed = fmt::format("record {} ending at log position {}", bookmark.records,
                                bookmark.position.value),
          .mend = "restore the recording from an intact copy, or save the replay again"};
}

void put_point(ByteWriter& out, const hv::ExecutionPoint& point) {
  out.put(point.branches.value);
  out.put(point.rip);
  out.put(point.rcx);
  out.put(point.instructions.value);
}

hv::ExecutionPoint get_point(ByteReader& in) {
  hv::ExecutionPoint point;
  point.branches = Branches(in.get<uint64_t>());
  point.rip = in.get<uint64_t>();
  point.rcx = in.get<uint64_t>();
  point.instructions = Instructions(in.get<uint64_t>());
  return point;
}

}  // namespace

Bytes encode(const Bookmark& bookmark) {
  ByteWriter out;
  out.put_bytes(kMagic);
  out.put(kBookmarkVersion);
  out.put(static_cast<uint32_t>(kBodyBytes));
  out.put_bytes(bookmark.recording);
  out.put(bookmark.records);
  out.put(bookmark.position.value);
  put_point(out, bookmark.point);
  put_point(out, bookmark.last_agreeing);
  US_CHECK(out.size() == kPrefixBytes + kBodyBytes);
  out.put(crc32c(out.bytes()));
  return out.take();
}

Result<Bookmark> read_bookmark(const hv::SnapshotSource& source) {
  Bytes bytes(kPrefixBytes + kBodyBytes + kTailBytes);
  const std::span<uint8_t> all(bytes);
  if (!source(all.first(sizeof kMagic)) || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0)
    return no_saved_replay();
  if (!source(all.subspan(sizeof kMagic, kPrefixBytes - sizeof kMagic)))
    return damaged("it ends inside its header");
  ByteReader in(bytes);
  in.get_span(sizeof kMagic);
  // The version comes first: behind it nothing is known of another one.
  if (const uint32_t version = in.get<uint32_t>(); version != kBookmarkVersion)
    return other_version(version);
  if (const uint32_t length = in.get<uint32_t>(); length != kBodyBytes)
    return damaged(fmt::format("a header of {} bytes", length));
  if (!source(all.subspan(kPrefixBytes))) return damaged("it ends inside its header");
  Bookmark bookmark;
  in.get_into(bookmark.recording);
  bookmark.records = in.get<uint64_t>();
  bookmark.position = LogPosition(in.get<uint64_t>());
  bookmark.point = get_point(in);
  bookmark.last_agreeing = get_point(in);
  if (in.get<uint32_t>() != crc32c(all.first(kPrefixBytes + kBodyBytes)))
    return damaged("the header's checksum does not match");
  return bookmark;
}

Status write_saved_replay(const Bookmark& bookmark, hv::Machine& machine,
                          const hv::SnapshotSink& sink) {
  US_CHECK(machine.point() == bookmark.point);
  if (Status s = sink(encode(bookmark)); !s.ok()) return s;
  return hv::write_snapshot(machine, sink);
}

Result<std::unique_ptr<hv::Machine>> read_saved_machine(const Bookmark& bookmark,
                                                        const hv::SnapshotSource& source,
                                                        hv::OutputSink& output) {
  auto machine = hv::read_snapshot(source, output);
  if (!machine.ok()) return machine;
  if ((*machine)->point() != bookmark.point)
    return damaged("the machine stands elsewhere than the header says");
  uint8_t more;
  if (source({&more, 1})) return damaged("something follows its end");
  return machine;
}

Status skip_to(const Bookmark& bookmark, log::LogStream& log, std::optional<log::Record>& first) {
  for (uint64_t i = 0; i < bookmark.records; ++i) {
    const bool end = !first || std::holds_alternative<log::End>(first->body);
    if (end) return other_log(fmt::format("{} records, then its end", i), bookmark);
    if (i + 1 == bookmark.records && log.position() != bookmark.position)
      return other_log(fmt::format("that record ends at {}", log.position().value), bookmark);
    auto next = log.next();
    if (!next.ok()) return next.error();
    first = std::move(*next);
  }
  return Done{};
}

}  // namespace us::replay
