// A replay saved in its middle goes on as one that never stopped; what is no saved replay of that
// log is refused.
#include "replay-engine/bookmark.h"

#include <algorithm>
#include <cstring>
#include <doctest/doctest.h>

#include "logchannel/memory_log.h"
#include "tests/unit/replay/guest.h"

namespace us::replay::test {
namespace {

constexpr uint64_t kRounds = 3'000;

hv::SnapshotSource source_of(ByteSpan bytes) {
  return [bytes, at = size_t{0}](std::span<uint8_t> out) mutable {
    if (out.size() > bytes.size() - at) return false;
    if (!out.empty()) std::memcpy(out.data(), bytes.data() + at, out.size());
    at += out.size();
    return true;
  };
}

// A replay that stands at `place`, or at its end.
struct Part {
  EndOfInputs end;
  bool at_place = false;
  uint64_t verified_epochs = 0;
  Bookmark here;
  Bytes saved;
  Digest digest;
};

Part replay_part(const Bytes& log, const Bytes& from, std::optional<Branches> place) {
  NoWorld world;
  log::MemoryStream stream(log);
  auto opening = read_opening(stream);
  REQUIRE(opening.ok());
  Bookmark start;
  std::unique_ptr<hv::Machine> machine;
  if (from.empty()) {
    machine = payload_machine(world, kRounds);
  } else {
    const auto source = source_of(from);
    auto bookmark = read_bookmark(source);
    REQUIRE(bookmark.ok());
    start = *bookmark;
    auto restored = read_saved_machine(start, source, world);
    REQUIRE(restored.ok());
    machine = std::move(restored).value();
    REQUIRE(skip_to(start, stream, opening->first).ok());
  }
  LogSource source(stream, std::move(opening->first));
  if (place) source.stop_at(*place);
  Verifier verifier;
  verifier.go_on_from(start.last_agreeing);
  Lander lander;
  Part part;
  part.end = run_loop(*machine, source, lander, &verifier);
  part.at_place = source.stopped_at_place() && lander.go_to(*machine, *place).ok();
  part.verified_epochs = verifier.verified_epochs();
  part.here = {.recording = {1, 2, 3},
               .records = start.records + source.records(),
               .position = source.records() != 0 ? source.position() : start.position,
               .point = machine->point(),
               .last_agreeing = verifier.last_agreeing()};
  if (place) {
    REQUIRE(write_saved_replay(part.here, *machine, [&](ByteSpan bytes) -> Status {
              part.saved.insert(part.saved.end(), bytes.begin(), bytes.end());
              return Done{};
            }).ok());
  }
  part.digest = machine->whole_digest();
  return part;
}

TEST_CASE("a replay saved at any branch and gone on with ends with the recorded digest") {
  const Recording recording = record_payload(kRounds);
  const Part whole = replay_part(recording.log, {}, std::nullopt);
  REQUIRE(whole.digest == recording.final_digest);
  const uint64_t branches = whole.here.point.branches.value;
  for (const uint64_t place : {uint64_t{0}, uint64_t{1}, branches / 7, branches / 3 + 1,
                               branches / 2, branches - 1, branches}) {
    CAPTURE(place);
    const Part first = replay_part(recording.log, {}, Branches(place));
    CHECK(first.at_place);
    CHECK(first.here.point.branches.value == place);
    const Part rest = replay_part(recording.log, first.saved, std::nullopt);
    CHECK(rest.end.kind == whole.end.kind);
    CHECK(rest.digest.hex() == recording.final_digest.hex());
    CHECK(first.verified_epochs + rest.verified_epochs == whole.verified_epochs);
    CHECK(rest.here.records == whole.here.records);
  }
}

TEST_CASE("a replay saved, gone on with, saved again and gone on with ends with the same digest") {
  const Recording recording = record_payload(kRounds);
  const Part whole = replay_part(recording.log, {}, std::nullopt);
  const uint64_t branches = whole.here.point.branches.value;
  const Part first = replay_part(recording.log, {}, Branches(branches / 3));
  const Part same = replay_part(recording.log, first.saved, Branches(branches / 3));
  CHECK(same.here == first.here);
  CHECK(same.digest.hex() == first.digest.hex());
  const Part second = replay_part(recording.log, same.saved, Branches(branches / 3 * 2));
  const Part straight = replay_part(recording.log, {}, Branches(branches / 3 * 2));
  CHECK(second.digest.hex() == straight.digest.hex());
  CHECK(second.here == straight.here);
  const Part rest = replay_part(recording.log, second.saved, std::nullopt);
  CHECK(rest.digest.hex() == recording.final_digest.hex());
}

TEST_CASE("a place behind the recording's end is not reached") {
  const Recording recording = record_payload(300);
  NoWorld world;
  auto machine = payload_machine(world, 300);
  log::MemoryStream stream(recording.log);
  auto opening = read_opening(stream);
  LogSource source(stream, std::move(opening->first));
  source.stop_at(Branches(uint64_t{1} << 60));
  Lander lander;
  const EndOfInputs end = run_loop(*machine, source, lander, nullptr);
  CHECK(end.kind == recording.end.kind);
  CHECK(!source.stopped_at_place());
  const LandingResult beyond = lander.go_to(*machine, Branches(uint64_t{1} << 60));
  CHECK(beyond.verdict == LandingVerdict::kGuestEnded);
  CHECK(machine->whole_digest() == recording.final_digest);
}

Bookmark sample() {
  return {.recording = {9, 8, 7},
          .records = 12,
          .position = LogPosition(345),
          .point = {Branches(1), 2, 3, Instructions(4)},
          .last_agreeing = {Branches(5), 6, 7, Instructions(8)}};
}

TEST_CASE("a bookmark is read back as it was written") {
  const auto read = read_bookmark(source_of(encode(sample())));
  REQUIRE(read.ok());
  CHECK(*read == sample());
}

TEST_CASE("the bytes of a bookmark are those of version 1") {
  const Bytes bytes = encode(sample());
  REQUIRE(bytes.size() == 116);
  CHECK(std::string(bytes.begin(), bytes.begin() + 8) == "USSAVE\r\n");
  const Bytes begin(bytes.begin() + 8, bytes.begin() + 20);
  CHECK(begin == Bytes{1, 0, 0, 0, 96, 0, 0, 0, 9, 8, 7, 0});
  CHECK(Bytes(bytes.begin() + 32, bytes.begin() + 36) == Bytes{12, 0, 0, 0});
}

TEST_CASE("a bookmark cut anywhere or with a changed byte is SNAP-001, 002 or 003") {
  const Bytes whole = encode(sample());
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    const auto read = read_bookmark(source_of({whole.data(), cut}));
    REQUIRE(!read.ok());
    CHECK(read.error().id == (cut < 8 ? "SNAP-001" : "SNAP-003"));
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    Bytes changed = whole;
    changed[at] ^= 0x20;
    const auto read = read_bookmark(source_of(changed));
    REQUIRE(!read.ok());
    CHECK(read.error().id == (at < 8 ? "SNAP-001" : at < 12 ? "SNAP-002" : "SNAP-003"));
  }
}

TEST_CASE("a saved replay whose parts do not belong together, or that goes on, is SNAP-003") {
  NoWorld world;
  auto machine = payload_machine(world, 10);
  Bookmark bookmark{.point = machine->point()};
  Bytes saved;
  REQUIRE(write_saved_replay(bookmark, *machine, [&](ByteSpan bytes) -> Status {
            saved.insert(saved.end(), bytes.begin(), bytes.end());
            return Done{};
          }).ok());
  const auto restore = [&](const Bookmark& expected, const Bytes& bytes) {
    const auto source = source_of(bytes);
    REQUIRE(read_bookmark(source).ok());
    return read_saved_machine(expected, source, world);
  };
  CHECK(restore(bookmark, saved).ok());
  Bookmark elsewhere = bookmark;
  elsewhere.point.branches += 1;
  CHECK(restore(elsewhere, saved).error().id == "SNAP-003");
  Bytes longer = saved;
  longer.push_back(0);
  CHECK(restore(bookmark, longer).error().id == "SNAP-003");
  saved.pop_back();
  CHECK(restore(bookmark, saved).error().id == "SNAP-003");
}

TEST_CASE("a log that is shorter, or whose records lie elsewhere, is SNAP-006") {
  const Recording recording = record_payload(300);
  const auto skipped = [&](uint64_t records, uint64_t position) {
    log::MemoryStream stream(recording.log);
    auto opening = read_opening(stream);
    const Bookmark bookmark{.records = records, .position = LogPosition(position)};
    const Status status = skip_to(bookmark, stream, opening->first);
    return status.ok() ? std::string("skipped") : status.error().id;
  };
  log::MemoryStream stream(recording.log);
  auto opening = read_opening(stream);
  const uint64_t first_ends = stream.position().value;
  CHECK(skipped(0, 0) == "skipped");
  CHECK(skipped(1, first_ends) == "skipped");
  CHECK(skipped(1, first_ends + 1) == "SNAP-006");
  CHECK(skipped(recording.records, 0) == "SNAP-006");  // the last of them is the end
  CHECK(skipped(~uint64_t{0}, 0) == "SNAP-006");
}

}  // namespace
}  // namespace us::replay::test
