// Frames: how runs of records travel and rest. Each has length, sequence, first log position and
// CRC-32C; a reader fed with bytes in pieces yields whole frames or a typed error.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "logchannel/record_codec.h"

namespace us::log {

constexpr uint32_t kFrameMagic = 0x4d524655;  // "UFRM"
constexpr size_t kFrameHeaderBytes = 40;
// Payload bounds, stored and decompressed: one record of the largest kind and a full batch.
constexpr size_t kFrameRecordsMax = 18 * 1024 * 1024;
constexpr size_t kFlushBytesMax = 1024 * 1024;

enum FrameFlags : uint16_t {
  kFrameZstd = 1,   // the payload is one zstd frame
  kFrameFresh = 2,  // the record codec starts afresh: decodable without the frames before it
};
constexpr uint16_t kFrameFlagsKnown = kFrameZstd | kFrameFresh;

struct FrameHeader {
  uint16_t flags = 0;
  uint32_t stored_bytes = 0;     // payload as stored
  uint32_t records_bytes = 0;    // payload decompressed
  uint64_t sequence = 0;         // counts up from 0, one a frame
  LogPosition first_position{};  // of its first record: decompressed payload bytes before it
  uint32_t payload_crc = 0;      // CRC-32C of the payload as stored
};

struct FrameOptions {
  size_t flush_bytes = 256 * 1024;         // FrameBuilder::full() from here; at most kFlushBytesMax
  int zstd_level = 1;                      // 0: never compress
  size_t zstd_bytes_min = 256;             // smaller payloads stay as they are
  size_t fresh_every_bytes = 1024 * 1024;  // the codec starts afresh at least this often
};

// Collects records and makes frames of them.
class FrameBuilder {
 public:
  explicit FrameBuilder(const FrameOptions& options, uint64_t first_sequence = 0,
                        LogPosition first_position = {});
  ~FrameBuilder();
  FrameBuilder(FrameBuilder&&) noexcept;
  FrameBuilder& operator=(FrameBuilder&&) noexcept;

  // Returns the position after the record.
  LogPosition append(const Record& record);
  // A record with its header flags and body as given; for tools and tests of other versions' logs.
  LogPosition append_raw(uint8_t type, uint8_t flags, ByteSpan body);

  bool empty() const { return pending_bytes() == 0; }
  size_t pending_bytes() const { return buffer_.size() - kFrameHeaderBytes; }
  bool full() const { return pending_bytes() >= options_.flush_bytes; }

  // The whole frame, valid until the next call. Precondition: !empty().
  ByteSpan finish();
  // The next frame starts afresh (first of a segment). Precondition: empty().
  void start_afresh() { fresh_next_ = true; }

  uint64_t next_sequence() const { return sequence_; }
  LogPosition position() const { return position_; }

 private:
  struct Compressor;
  void begin_frame();

  FrameOptions options_;
  RecordEncoder encoder_;
  std::unique_ptr<Compressor> compressor_;
  Bytes buffer_;      // room for the header, then the records of the frame in the making
  Bytes compressed_;  // the same, compressed
  Bytes done_;        // the frame finish() returned
  uint64_t sequence_;
  LogPosition first_position_;
  LogPosition position_;
  LogPosition last_fresh_;
  bool fresh_next_ = true;
  bool fresh_ = true;
};

enum class FrameError : uint8_t {
  kBadMagic,
  kBadHeaderCrc,
  kBadPayloadCrc,
  kUnknownFlags,
  kBadLength,  // zero, past its bound, or one that contradicts another
  kBadCompression,
  kOutOfSequence,
  kOutOfPosition,
  kNotFresh,  // the first frame leans on frames that are not here
};
const char* describe(FrameError error);

struct Frame {
  FrameHeader header;
  ByteSpan records{};  // decompressed; valid until the reader's next call
};

struct FrameReaderOptions {
  size_t records_bytes_max = kFrameRecordsMax;  // what a peer can make us hold
  uint64_t first_sequence = 0;
  LogPosition first_position{};
};

// Fed bytes in any pieces. Holds at most one frame. After an error it stays in error.
class FrameReader {
 public:
  explicit FrameReader(const FrameReaderOptions& options = {});
  ~FrameReader();
  FrameReader(FrameReader&&) noexcept;
  FrameReader& operator=(FrameReader&&) noexcept;

  // Takes bytes up to the end of the frame in the making and returns how many; call next(), then
  // feed the rest.
  size_t feed(ByteSpan bytes);
  // The frame when it is whole, nothing while bytes are missing.
  Result<std::optional<Frame>, FrameError> next();

  // Bytes of a frame begun but not whole: what is torn if no more comes.
  size_t partial_bytes() const { return buffer_.size(); }
  bool partial_is_zero() const;
  // Forgets them: the connection broke, and the peer will send that frame again from its start.
  void drop_partial();
  uint64_t next_sequence() const { return sequence_; }
  LogPosition position() const { return position_; }

 private:
  struct Decompressor;
  std::optional<FrameError> parse_header();
  Result<std::optional<Frame>, FrameError> take_frame();
  Result<std::optional<Frame>, FrameError> fail(FrameError error);

  FrameReaderOptions options_;
  std::unique_ptr<Decompressor> decompressor_;
  Bytes buffer_;   // the frame in the making
  Bytes yielded_;  // backs the records of the frame yielded last
  FrameHeader header_;
  bool header_parsed_ = false;
  std::optional<FrameError> error_;
  uint64_t sequence_;
  LogPosition position_;
};

// The header's bytes; the header CRC is computed here. `out` has kFrameHeaderBytes.
void put_frame_header(const FrameHeader& header, uint8_t* out);

}  // namespace us::log
