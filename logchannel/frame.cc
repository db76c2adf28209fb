#include "logchannel/frame.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>
#include <zstd.h>

#include "base/check.h"
#include "base/crc32c.h"

namespace us::log {
namespace {

template <class T>
void store(uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

// Offsets in the header; docs/log-format.md has the same table.
constexpr size_t kAtMagic = 0, kAtFlags = 4, kAtReserved = 6, kAtStored = 8, kAtRecords = 12,
                 kAtSequence = 16, kAtPosition = 24, kAtPayloadCrc = 32, kAtHeaderCrc = 36;

constexpr size_t kSamplePieces = 4, kSamplePieceBytes = 4096;
constexpr size_t kSampledBytesMin = 4 * kSamplePieces * kSamplePieceBytes;

}  // namespace

void put_frame_header(const FrameHeader& header, uint8_t* out) {
  store(out + kAtMagic, kFrameMagic);
  store(out + kAtFlags, header.flags);
  store(out + kAtReserved, uint16_t{0});
  store(out + kAtStored, header.stored_bytes);
  store(out + kAtRecords, header.records_bytes);
  store(out + kAtSequence, header.sequence);
  store(out + kAtPosition, header.first_position.value);
  store(out + kAtPayloadCrc, header.payload_crc);
  store(out + kAtHeaderCrc, crc32c({out, kAtHeaderCrc}));
}

// --- Builder
// --------------------------------------------------------------------------------------

struct FrameBuilder::Compressor {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  Bytes sample;
  Bytes compressed_sample;

  // Compresses `from` into `to`; empty: it does not shrink by enough to be worth the reader's time.
  std::optional<size_t> compress(ByteSpan from, std::span<uint8_t> to, int level) const {
    const size_t size =
        ZSTD_compressCCtx(context, to.data(), to.size(), from.data(), from.size(), level);
    if (ZSTD_isError(size) != 0 || size + from.size() / 32 >= from.size()) return std::nullopt;
    return size;
  }

  // A few pieces tell whether a large payload is encrypted or compressed already: trying all of it
  // would cost more than everything else that is done to it.
  bool promising(ByteSpan payload, int level) {
    if (payload.size() < kSampledBytesMin) return true;
    sample.clear();
    const size_t stride = payload.size() / kSamplePieces;
    for (size_t i = 0; i < kSamplePieces; ++i) {
      const ByteSpan piece = payload.subspan(i * stride, kSamplePieceBytes);
      sample.insert(sample.end(), piece.begin(), piece.end());
    }
    compressed_sample.resize(sample.size());
    return compress(sample, compressed_sample, level).has_value();
  }

  Compressor() { US_CHECK(context != nullptr, "out of memory for a compressor"); }
  ~Compressor() { ZSTD_freeCCtx(context); }
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;
};

FrameBuilder::FrameBuilder(const FrameOptions& options, uint64_t first_sequence,
                           LogPosition first_position)
    : options_(options),
      buffer_(kFrameHeaderBytes),
      sequence_(first_sequence),
      first_position_(first_position),
      position_(first_position),
      last_fresh_(first_position) {
  options_.flush_bytes = std::clamp<size_t>(options_.flush_bytes, 1, kFlushBytesMax);
  if (options_.zstd_level != 0) compressor_ = std::make_unique<Compressor>();
}
FrameBuilder::~FrameBuilder() = default;
FrameBuilder::FrameBuilder(FrameBuilder&&) noexcept = default;
FrameBuilder& FrameBuilder::operator=(FrameBuilder&&) noexcept = default;

void FrameBuilder::begin_frame() {
  first_position_ = position_;
  fresh_ = fresh_next_ || (position_ - last_fresh_).value >= options_.fresh_every_bytes;
  fresh_next_ = false;
  if (fresh_) {
    encoder_.start_afresh();
    last_fresh_ = position_;
  }
}

LogPosition FrameBuilder::append(const Record& record) {
  if (empty()) begin_frame();
  const size_t before = buffer_.size();
  encoder_.encode(record, buffer_);
  position_ += buffer_.size() - before;
  return position_;
}

LogPosition FrameBuilder::append_raw(uint8_t type, uint8_t flags, ByteSpan body) {
  if (empty()) begin_frame();
  const size_t before = buffer_.size();
  ByteWriter header;
  header.put<uint8_t>(flags != 0 ? type | kFlagsFollow : type);
  if (flags != 0) header.put(flags);
  header.put_varint(body.size());
  buffer_.insert(buffer_.end(), header.bytes().begin(), header.bytes().end());
  buffer_.insert(buffer_.end(), body.begin(), body.end());
  position_ += buffer_.size() - before;
  return position_;
}

ByteSpan FrameBuilder::finish() {
  US_CHECK(!empty(), "a frame without records");
  const size_t records_bytes = pending_bytes();
  US_CHECK(records_bytes <= kFrameRecordsMax, "a frame of {} bytes", records_bytes);
  FrameHeader header;
  header.flags = fresh_ ? kFrameFresh : 0;
  header.records_bytes = static_cast<uint32_t>(records_bytes);
  header.sequence = sequence_++;
  header.first_position = first_position_;
  std::swap(buffer_, done_);
  buffer_.resize(kFrameHeaderBytes);
  size_t stored = records_bytes;
  const ByteSpan payload = ByteSpan(done_).subspan(kFrameHeaderBytes);
  if (compressor_ && records_bytes >= options_.zstd_bytes_min &&
      compressor_->promising(payload, options_.zstd_level)) {
    compressed_.resize(kFrameHeaderBytes + records_bytes);
    const auto size = compressor_->compress(
        payload, std::span(compressed_).subspan(kFrameHeaderBytes), options_.zstd_level);
    if (size) {
      std::swap(done_, compressed_);
      stored = *size;
      header.flags |= kFrameZstd;
    }
  }
  done_.resize(kFrameHeaderBytes + stored);
  header.stored_bytes = static_cast<uint32_t>(stored);
  header.payload_crc = crc32c({done_.data() + kFrameHeaderBytes, stored});
  put_frame_header(header, done_.data());
  return done_;
}

// --- Reader
// ---------------------------------------------------------------------------------------

const char* describe(FrameError error) {
  switch (error) {
    case FrameError::kBadMagic: return "no frame begins here";
    case FrameError::kBadHeaderCrc: return "the frame header's checksum does not match";
    case FrameError::kBadPayloadCrc: return "the frame payload's checksum does not match";
    case FrameError::kUnknownFlags: return "frame flags that are unknown";
    case FrameError::kBadLength: return "a frame length that is zero or past its bound";
    case FrameError::kBadCompression: return "a frame payload that does not decompress";
    case FrameError::kOutOfSequence: return "a frame out of sequence";
    case FrameError::kOutOfPosition: return "a frame whose log position does not follow";
    case FrameError::kNotFresh: return "a first frame that leans on frames before it";
  }
  return "?";
}

struct FrameReader::Decompressor {
  ZSTD_DCtx* context = ZSTD_createDCtx();
  Decompressor() { US_CHECK(context != nullptr, "out of memory for a decompressor"); }
  ~Decompressor() { ZSTD_freeDCtx(context); }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;
};

FrameReader::FrameReader(const FrameReaderOptions& options)
    : options_(options), sequence_(options.first_sequence), position_(options.first_position) {}
FrameReader::~FrameReader() = default;
FrameReader::FrameReader(FrameReader&&) noexcept = default;
FrameReader& FrameReader::operator=(FrameReader&&) noexcept = default;

size_t FrameReader::feed(ByteSpan bytes) {
  size_t taken = 0;
  // At most two rounds: the rest of the header, then of the payload.
  while (!error_ && taken < bytes.size()) {
    const size_t whole = kFrameHeaderBytes + (header_parsed_ ? header_.stored_bytes : 0);
    if (buffer_.size() == whole) break;
    const size_t n = std::min(whole - buffer_.size(), bytes.size() - taken);
    buffer_.insert(buffer_.end(), bytes.begin() + taken, bytes.begin() + taken + n);
    taken += n;
    if (!header_parsed_ && buffer_.size() == kFrameHeaderBytes) {
      header_parsed_ = true;
      error_ = parse_header();
    }
  }
  return taken;
}

bool FrameReader::partial_is_zero() const {
  return std::all_of(buffer_.begin(), buffer_.end(), [](uint8_t byte) { return byte == 0; });
}

void FrameReader::drop_partial() {
  if (error_) return;
  buffer_.clear();
  header_parsed_ = false;
}

std::optional<FrameError> FrameReader::parse_header() {
  ByteReader in(buffer_);
  const auto magic = in.get<uint32_t>();
  header_.flags = in.get<uint16_t>();
  const auto reserved = in.get<uint16_t>();
  header_.stored_bytes = in.get<uint32_t>();
  header_.records_bytes = in.get<uint32_t>();
  header_.sequence = in.get<uint64_t>();
  header_.first_position = LogPosition(in.get<uint64_t>());
  header_.payload_crc = in.get<uint32_t>();
  const auto header_crc = in.get<uint32_t>();
  if (magic != kFrameMagic) return FrameError::kBadMagic;
  if (header_crc != crc32c({buffer_.data(), kAtHeaderCrc})) return FrameError::kBadHeaderCrc;
  if ((header_.flags & ~kFrameFlagsKnown) != 0 || reserved != 0) return FrameError::kUnknownFlags;
  const bool compressed = (header_.flags & kFrameZstd) != 0;
  const size_t bound = std::min(options_.records_bytes_max, kFrameRecordsMax);
  const bool lengths_agree = compressed ? header_.stored_bytes < header_.records_bytes
                                        : header_.stored_bytes == header_.records_bytes;
  if (header_.stored_bytes == 0 || header_.records_bytes > bound || !lengths_agree) {
    return FrameError::kBadLength;
  }
  if (header_.sequence != sequence_) return FrameError::kOutOfSequence;
  if (header_.first_position != position_) return FrameError::kOutOfPosition;
  const bool first = header_.sequence == options_.first_sequence;
  if (first && (header_.flags & kFrameFresh) == 0) return FrameError::kNotFresh;
  return std::nullopt;
}

Result<std::optional<Frame>, FrameError> FrameReader::fail(FrameError error) {
  error_ = error;
  return error;
}

Result<std::optional<Frame>, FrameError> FrameReader::next() {
  if (error_) return *error_;
  if (!header_parsed_ || buffer_.size() < kFrameHeaderBytes + header_.stored_bytes) {
    return std::optional<Frame>();
  }
  return take_frame();
}

Result<std::optional<Frame>, FrameError> FrameReader::take_frame() {
  const ByteSpan stored = ByteSpan(buffer_).subspan(kFrameHeaderBytes);
  if (crc32c(stored) != header_.payload_crc) return fail(FrameError::kBadPayloadCrc);
  Frame frame{header_, {}};
  if ((header_.flags & kFrameZstd) != 0) {
    if (!decompressor_) decompressor_ = std::make_unique<Decompressor>();
    yielded_.resize(header_.records_bytes);
    const size_t size = ZSTD_decompressDCtx(decompressor_->context, yielded_.data(),
                                            yielded_.size(), stored.data(), stored.size());
    if (ZSTD_isError(size) != 0 || size != yielded_.size()) {
      return fail(FrameError::kBadCompression);
    }
    frame.records = yielded_;
  } else {
    std::swap(buffer_, yielded_);
    frame.records = ByteSpan(yielded_).subspan(kFrameHeaderBytes);
  }
  buffer_.clear();
  header_parsed_ = false;
  ++sequence_;
  position_ += header_.records_bytes;
  return std::optional<Frame>(frame);
}

}  // namespace us::log
