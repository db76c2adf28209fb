#include "logchannel/record_codec.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "samples.h"

namespace us::log {
namespace {

Bytes encode(const std::vector<Record>& records) {
  RecordEncoder encoder;
  Bytes out;
  for (const Record& record : records) encoder.encode(record, out);
  return out;
}

std::optional<RecordError> decode_error(ByteSpan bytes) {
  RecordDecoder decoder;
  ByteReader in(bytes);
  for (;;) {
    auto record = decoder.decode(in);
    if (!record) return record.error();
    if (!record->has_value()) return std::nullopt;
  }
}

std::string to_hex(ByteSpan bytes) {
  std::string out;
  for (uint8_t byte : bytes) out += fmt::format("{:02x}", byte);
  return out + "\n";
}

}  // namespace

TEST_CASE("a record of every type encodes to the bytes of its golden file") {
  for (const auto& sample : samples()) {
    const std::string& name = sample.first;
    const Record& record = sample.second;
    INFO(name);
    const std::filesystem::path path =
        std::filesystem::path(US_GOLDEN_FOLDER) / fmt::format("v1-{}.hex", name);
    const std::string hex = to_hex(encode({record}));
    // US_WRITE_GOLDEN=1 makes the files of samples added; a change of an old one is a format break.
    if (std::getenv("US_WRITE_GOLDEN") != nullptr && !std::filesystem::exists(path)) {
      write_bytes(path, {reinterpret_cast<const uint8_t*>(hex.data()), hex.size()});
    }
    const Bytes golden = read_bytes(path);
    CHECK(std::string(golden.begin(), golden.end()) == hex);
  }
}

TEST_CASE("a sequence of all record types decodes to what was encoded") {
  const std::vector<Record> records = sample_sequence();
  const Bytes bytes = encode(records);
  RecordDecoder decoder;
  ByteReader in(bytes);
  for (const Record& expected : records) {
    auto record = decoder.decode(in);
    REQUIRE(record.ok());
    REQUIRE(record->has_value());
    CHECK(**record == expected);
  }
  auto end = decoder.decode(in);
  REQUIRE(end.ok());
  CHECK_FALSE(end->has_value());
}

TEST_CASE("an idle guest's timer anchors take at most 10 bytes each, with instructions 12") {
  for (const bool counted : {false, true}) {
    RecordEncoder encoder;
    Bytes out;
    uint64_t tsc = 1'000'000'000;
    size_t worst = 0;
    for (uint64_t tick = 1; tick <= 1000; ++tick) {
      // 4 ms apart give or take a few microseconds, a few thousand branches a tick, woken from HLT.
      tsc += 4'000'000 + (tick * 2654435761u >> 7) % 10'000;
      Record record = at(tick * 3011 + tick % 7, Anchor{});
      record.body = Anchor{record.at.branches, tsc, 2ull << 32, tsc + 5'000'000};
      if (!counted) record.at.instructions = 0;
      const size_t before = out.size();
      encoder.encode(record, out);
      if (tick > 2) worst = std::max(worst, out.size() - before);
    }
    CHECK(worst <= (counted ? 12 : 10));
  }
}

TEST_CASE("a busy guest's timer anchors at scattered kernel addresses take under 16 bytes each") {
  RecordEncoder encoder;
  Bytes out;
  uint64_t tsc = 1'000'000'000;
  size_t total = 0;
  for (uint64_t tick = 1; tick <= 1000; ++tick) {
    const uint64_t noise = tick * 2654435761u >> 7;
    tsc += 4'000'000 + noise % 50'000;
    Record record =
        at(tick * 1'300'000 + noise % 5000, Anchor{}, 0xffffffff81000000 + noise % (1 << 24));
    record.at.instructions = 0;
    record.body = Anchor{record.at.branches, tsc, 3ull << 32, tsc + 5'000'000};
    const size_t before = out.size();
    encoder.encode(record, out);
    if (tick > 2) total = std::max(total, out.size() - before);
  }
  CHECK(total < 16);
}

TEST_CASE("a record at the very place of the one before spends one byte on its position") {
  RecordEncoder encoder;
  Bytes out;
  encoder.encode(at(1000, Command{1, 0}), out);
  const size_t before = out.size();
  encoder.encode(at(1000, Command{1, 0}), out);
  CHECK(out.size() - before == 1 + 1 + 1 + 2);  // type, length, position, code and argument
}

TEST_CASE(
    "every prefix of an encoded sequence decodes to a prefix of its records, then truncated") {
  const Bytes bytes = encode(sample_sequence());
  const std::vector<Record> records = sample_sequence();
  for (size_t length = 0; length < bytes.size(); ++length) {
    RecordDecoder decoder;
    ByteReader in(ByteSpan(bytes).subspan(0, length));
    size_t count = 0;
    for (;;) {
      auto record = decoder.decode(in);
      if (!record) {
        CHECK(record.error() == RecordError::kTruncated);
        break;
      }
      if (!record->has_value()) break;
      REQUIRE(**record == records[count++]);
    }
  }
}

TEST_CASE("an unknown record type is refused, or handed on as Unknown when skippable") {
  const Bytes refused = {50, 1, 0xaa};
  CHECK(decode_error(refused) == RecordError::kUnknownType);
  const Bytes skippable = {50 | kFlagsFollow, kRecordSkippable, 1, 0xaa};
  RecordDecoder decoder;
  ByteReader in(skippable);
  auto record = decoder.decode(in);
  REQUIRE(record.ok());
  CHECK(std::get<Unknown>((*record)->body) == Unknown{50, {0xaa}});
}

TEST_CASE("hostile record headers and bodies are refused by name") {
  // Flags unknown; a length past the bound; past the frame; type 0.
  CHECK(decode_error(Bytes{5 | kFlagsFollow, 0x40, 1, 0}) == RecordError::kUnknownFlags);
  CHECK(decode_error(Bytes{2, 0xff, 0xff, 0xff, 0xff, 0x7f}) == RecordError::kLengthPastBound);
  CHECK(decode_error(Bytes{2, 0x20, 0}) == RecordError::kTruncated);
  CHECK(decode_error(Bytes{0, 0}) == RecordError::kUnknownType);
  // A command: bytes left over, bytes missing, a RIP slot never filled, extras unknown.
  const uint8_t same_point = kRipSlots << 2 | 0x0f;
  CHECK(decode_error(Bytes{5, 3, same_point, 1, 0}) == std::nullopt);
  CHECK(decode_error(Bytes{5, 4, same_point, 1, 0, 0}) == RecordError::kMalformed);
  CHECK(decode_error(Bytes{5, 2, same_point, 1}) == RecordError::kMalformed);
  CHECK(decode_error(Bytes{5, 4, 3 << 2, 1, 1, 0}) == RecordError::kMalformed);
  CHECK(decode_error(Bytes{5, 6, 62 << 2 | 1, 0x80, 1, 1, 1, 0}) == RecordError::kMalformed);
  // A vCPU past the bound, and 0 where the flag says another.
  CHECK(decode_error(Bytes{0x85, 2, 4, 64, same_point, 1, 0}) == RecordError::kMalformed);
  CHECK(decode_error(Bytes{0x85, 2, 4, 0, same_point, 1, 0}) == RecordError::kMalformed);
  // A disk outcome, a marker kind, an end reason and a section name out of range.
  CHECK(decode_error(Bytes{3, 4, same_point, 0, 9, 0}) == RecordError::kMalformed);
  CHECK(decode_error(Bytes{8, 3, same_point, 9, 0}) == RecordError::kMalformed);
  CHECK(decode_error(Bytes{9, 5, same_point, 1, '/', 0, 0}) == RecordError::kMalformed);
  // A section whose part reaches past its total; an anchor with its ceiling below its TSC.
  CHECK(decode_error(Bytes{9, 6, same_point, 1, 'a', 0, 0, 1}) == RecordError::kMalformed);
  CHECK(decode_error(Bytes{1, 3, same_point, 1 << 5, 2}) == RecordError::kMalformed);
}

TEST_CASE("positions that run backwards over a fresh start are refused as out of order") {
  RecordEncoder first, second;
  Bytes late, early;
  first.encode(at(2000, Command{1, 0}), late);
  second.encode(at(1000, Command{1, 0}), early);
  RecordDecoder decoder;
  ByteReader in_late(late), in_early(early);
  REQUIRE(decoder.decode(in_late).ok());
  decoder.start_afresh();
  auto record = decoder.decode(in_early);
  REQUIRE_FALSE(record.ok());
  CHECK(record.error() == RecordError::kOutOfOrder);
}

TEST_CASE("a skippable record between two others does not change how those are read") {
  const Record before = at(1000, Command{1, 0});
  const Record after = at(1001, Command{2, 0});
  Record note = at(1000, Marker{MarkerKind::kNote, 1, "x"}, 0x1234);
  note.skippable = true;
  RecordEncoder encoder;
  Bytes out, skipped;
  encoder.encode(before, out);
  encoder.encode(note, skipped);
  encoder.encode(after, out);
  RecordDecoder decoder;
  ByteReader in(out);
  CHECK(**decoder.decode(in) == before);
  CHECK(**decoder.decode(in) == after);
}

TEST_CASE("a section in parts joins to the whole; gaps, changed totals and excess break it") {
  const Bytes data = pattern_bytes(1000);
  const std::vector<Section> parts = split_section("snapshot", data, 300);
  REQUIRE(parts.size() == 4);
  SectionJoiner joiner(1000);
  for (size_t i = 0; i < 3; ++i) CHECK(joiner.add(parts[i]) == SectionJoiner::State::kPartial);
  CHECK(joiner.add(parts[3]) == SectionJoiner::State::kWhole);
  CHECK(joiner.data() == data);

  SectionJoiner gap(1000);
  (void)gap.add(parts[0]);
  CHECK(gap.add(parts[2]) == SectionJoiner::State::kBroken);
  SectionJoiner changed(5000);
  (void)changed.add(parts[0]);
  Section other = parts[1];
  other.total = 2000;
  CHECK(changed.add(other) == SectionJoiner::State::kBroken);
  SectionJoiner small(999);
  CHECK(small.add(parts[0]) == SectionJoiner::State::kBroken);
  SectionJoiner empty(0);
  CHECK(empty.add(split_section("vm", {})[0]) == SectionJoiner::State::kWhole);
}

}  // namespace us::log
