#include "logchannel/frame.h"

#include <doctest/doctest.h>
#include <random>

#include "base/crc32c.h"
#include "logchannel/memory_log.h"
#include "samples.h"

namespace us::log {
namespace {

// Two frames of the sample records.
Bytes two_frames(const FrameOptions& options = {}) {
  FrameBuilder builder(options);
  Bytes out;
  const std::vector<Record> records = sample_sequence();
  for (size_t i = 0; i < records.size(); ++i) {
    builder.append(records[i]);
    if (i + 1 != records.size() / 2 && i + 1 != records.size()) continue;
    const ByteSpan frame = builder.finish();
    out.insert(out.end(), frame.begin(), frame.end());
  }
  return out;
}

struct Outcome {
  size_t frames = 0;
  size_t records_bytes = 0;
  std::optional<FrameError> error;
  size_t partial = 0;
};

Outcome feed_all(ByteSpan bytes, size_t piece, FrameReaderOptions options = {}) {
  FrameReader reader(options);
  Outcome out;
  while (!bytes.empty() && !out.error) {
    const size_t taken = reader.feed(bytes.subspan(0, std::min(piece, bytes.size())));
    bytes = bytes.subspan(taken);
    auto frame = reader.next();
    if (!frame) {
      out.error = frame.error();
    } else if (frame->has_value()) {
      ++out.frames;
      out.records_bytes += (*frame)->records.size();
    }
  }
  out.partial = reader.partial_bytes();
  return out;
}

Bytes with_header(const FrameHeader& header, ByteSpan payload) {
  Bytes out(kFrameHeaderBytes);
  put_frame_header(header, out.data());
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

}  // namespace

TEST_CASE("two frames fed in pieces of any size come out whole") {
  const Bytes bytes = two_frames();
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{40}, size_t{41}, bytes.size()}) {
    const Outcome out = feed_all(bytes, piece);
    CHECK(out.frames == 2);
    CHECK_FALSE(out.error);
    CHECK(out.partial == 0);
  }
}

TEST_CASE("any single bit flipped in two frames is met by an error or a frame that never comes") {
  const Bytes good = two_frames();
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    const Outcome out = feed_all(bad, bad.size());
    INFO(bit);
    REQUIRE(out.error.has_value());
    CHECK(out.frames < 2);
  }
}

TEST_CASE("a payload that compresses is stored smaller, one that does not is stored as it is") {
  FrameBuilder builder({});
  builder.append(at(1000, NetFrame{0, Bytes(10'000, 'a')}));
  const size_t compressed = builder.finish().size();
  CHECK(compressed < 300);
  builder.append(at(2000, NetFrame{0, pattern_bytes(10'000)}));
  const size_t noise = builder.finish().size();
  CHECK(noise > 10'000);
  CHECK(noise < 10'000 + kFrameHeaderBytes + 40);
}

TEST_CASE(
    "large payloads are compressed where samples of them shrink, and stored as they are else") {
  std::mt19937_64 random(7);
  Bytes noise(128 * 1024);
  for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
  Bytes words(128 * 1024);
  for (uint8_t& byte : words) byte = static_cast<uint8_t>('a' + random() % 8);
  const auto stored = [](const Bytes& data) {
    FrameBuilder builder({});
    builder.append({.at = {.branches = 1}, .body = NetFrame{0, data}});
    return builder.finish().size();
  };
  CHECK(stored(noise) > noise.size());
  CHECK(stored(words) < words.size() * 6 / 10);
}

TEST_CASE("the log position counts record bytes before compression and both ends agree on it") {
  MemorySink sink;
  std::vector<LogPosition> positions;
  const std::vector<Record> records = sample_sequence();
  for (const Record& record : records) positions.push_back(sink.append(record));
  REQUIRE(sink.flush().ok());
  MemoryStream stream(sink.bytes());
  for (size_t i = 0; i < records.size(); ++i) {
    auto record = stream.next();
    REQUIRE(record.ok());
    REQUIRE(record->has_value());
    CHECK(**record == records[i]);
    CHECK(stream.position() == positions[i]);
  }
  CHECK(stream.end().complete);
}

TEST_CASE("a stream in memory yields nothing until the sink flushes, then goes on") {
  MemorySink sink;
  MemoryStream stream(sink.bytes());
  sink.append(at(1000, Command{1, 0}));
  CHECK_FALSE(stream.next()->has_value());
  CHECK_FALSE(stream.end().ended);
  REQUIRE(sink.flush().ok());
  CHECK(stream.next()->has_value());
  CHECK_FALSE(stream.next()->has_value());
}

TEST_CASE("frames out of sequence, repeated, or without a fresh start are refused by name") {
  FrameBuilder builder({});
  std::vector<Bytes> frames;
  for (uint64_t i = 1; i <= 3; ++i) {
    builder.append(at(i * 1000, Command{1, 0}));
    const ByteSpan frame = builder.finish();
    frames.emplace_back(frame.begin(), frame.end());
  }
  const auto joined = [&frames](std::initializer_list<size_t> order) {
    Bytes out;
    for (size_t i : order) out.insert(out.end(), frames[i].begin(), frames[i].end());
    return out;
  };
  CHECK(feed_all(joined({0, 1, 2}), 1000).frames == 3);
  CHECK(feed_all(joined({0, 2, 1}), 1000).error == FrameError::kOutOfSequence);
  CHECK(feed_all(joined({0, 0}), 1000).error == FrameError::kOutOfSequence);
  FrameReaderOptions from_second{.first_sequence = 1, .first_position = LogPosition(17)};
  CHECK(feed_all(frames[1], 1000, from_second).error == FrameError::kOutOfPosition);
  FrameReader first;
  (void)first.feed(frames[0]);
  (void)first.next();
  from_second.first_position = first.position();
  CHECK(feed_all(frames[1], 1000, from_second).error == FrameError::kNotFresh);
}

TEST_CASE("hostile frame headers are refused before any payload is awaited") {
  const Bytes payload = {5, 3, 0xff, 1, 0};
  FrameHeader good;
  good.flags = kFrameFresh;
  good.stored_bytes = good.records_bytes = static_cast<uint32_t>(payload.size());
  good.payload_crc = crc32c(payload);
  CHECK(feed_all(with_header(good, payload), 1000).frames == 1);

  const auto refused = [&payload](FrameHeader header) {
    return feed_all(with_header(header, payload), kFrameHeaderBytes).error;
  };
  FrameHeader bad = good;
  bad.stored_bytes = bad.records_bytes = 0xffffffff;
  CHECK(refused(bad) == FrameError::kBadLength);
  bad.stored_bytes = bad.records_bytes = 0;
  CHECK(refused(bad) == FrameError::kBadLength);
  bad = good;
  bad.stored_bytes += 1;
  CHECK(refused(bad) == FrameError::kBadLength);
  bad = good;
  bad.flags |= kFrameZstd;  // as large as what it decompresses to
  CHECK(refused(bad) == FrameError::kBadLength);
  bad.records_bytes = 1000;  // and not zstd
  CHECK(feed_all(with_header(bad, payload), 1000).error == FrameError::kBadCompression);
  bad = good;
  bad.flags |= 0x100;
  CHECK(refused(bad) == FrameError::kUnknownFlags);
  CHECK(feed_all(with_header(good, payload), 1000, {.records_bytes_max = 4}).error ==
        FrameError::kBadLength);
}

TEST_CASE("a connection lost at any byte goes on with the frame sent again, none lost or doubled") {
  const Bytes bytes = two_frames();
  uint32_t stored;
  std::memcpy(&stored, bytes.data() + 8, 4);
  const size_t second = kFrameHeaderBytes + stored;
  for (size_t lost_at = 0; lost_at <= bytes.size(); ++lost_at) {
    FrameReader reader;
    size_t frames = 0;
    const auto feed = [&](ByteSpan part) {
      while (!part.empty()) {
        part = part.subspan(reader.feed(part));
        auto frame = reader.next();
        REQUIRE(frame.ok());
        frames += frame->has_value() ? 1 : 0;
      }
    };
    feed(ByteSpan(bytes).subspan(0, lost_at));
    reader.drop_partial();
    const size_t resume = reader.next_sequence() == 0   ? 0
                          : reader.next_sequence() == 1 ? second
                                                        : bytes.size();
    feed(ByteSpan(bytes).subspan(resume));
    CHECK(frames == 2);
  }
}

TEST_CASE("a reader in error stays in error and takes no more bytes") {
  FrameReader reader;
  const Bytes junk(100, 0x55);
  (void)reader.feed(junk);
  REQUIRE_FALSE(reader.next().ok());
  CHECK(reader.feed(junk) == 0);
  CHECK(reader.next().error() == FrameError::kBadMagic);
}

}  // namespace us::log
