#include "logchannel/log_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

namespace us::log {
namespace {

constexpr size_t kChunkBytes = 256 * 1024;

UserError unreadable(const std::string& id, const std::string& what, const std::string& seen,
                     const std::string& needed, const std::string& mend) {
  return {id, ExitCode::kLogUnreadable, what, seen, needed, mend};
}

constexpr char kRestore[] = "restore the recording from an intact copy, or record again";

// At most `bytes_max` bytes of a file's start; an errno on failure.
Result<Bytes, int> read_start(const std::filesystem::path& path, size_t bytes_max) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno;
  Bytes bytes(bytes_max);
  size_t have = 0;
  int error = 0;
  while (have < bytes_max) {
    const ssize_t n = ::read(file, bytes.data() + have, bytes_max - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) error = errno;
    if (n <= 0) break;
    have += static_cast<size_t>(n);
  }
  ::close(file);
  if (error != 0) return error;
  bytes.resize(have);
  return bytes;
}

const char* frame_error_id(FrameError error) {
  switch (error) {
    case FrameError::kOutOfSequence:
    case FrameError::kOutOfPosition:
    case FrameError::kNotFresh: return "LOG-007";
    case FrameError::kUnknownFlags: return "LOG-003";
    case FrameError::kBadLength: return "LOG-009";
    case FrameError::kBadMagic:
    case FrameError::kBadHeaderCrc:
    case FrameError::kBadPayloadCrc:
    case FrameError::kBadCompression: return "LOG-006";
  }
  return "LOG-006";
}

const char* record_error_id(RecordError error) {
  switch (error) {
    case RecordError::kUnknownType:
    case RecordError::kUnknownFlags: return "LOG-011";
    case RecordError::kLengthPastBound: return "LOG-009";
    case RecordError::kOutOfOrder: return "LOG-007";
    case RecordError::kTruncated:
    case RecordError::kMalformed: return "LOG-010";
  }
  return "LOG-010";
}

}  // namespace

Result<std::unique_ptr<LogReader>> LogReader::open(const std::filesystem::path& folder,
                                                   const LogReaderOptions& options) {
  const std::filesystem::path path = folder / kManifestName;
  auto bytes = read_start(path, kOuterHeaderBytesMax + 1);
  if (!bytes) {
    return unreadable("LOG-001", fmt::format("cannot open the recording {}", folder.string()),
                      fmt::format("{}: {}", path.string(), std::strerror(bytes.error())),
                      "a directory made by `understudy record -o`", "check the path");
  }
  auto manifest = decode_manifest(*bytes);
  if (!manifest) return header_error(manifest.error(), path, *bytes);
  auto segments = count_segments(folder);
  if (!segments) return segments.error();
  return std::unique_ptr<LogReader>(
      new LogReader(folder, options, *manifest, *segments, bytes->size()));
}

LogReader::LogReader(std::filesystem::path folder, const LogReaderOptions& options,
                     Manifest manifest, uint32_t segment_count, uint64_t manifest_bytes)
    : folder_(std::move(folder)),
      options_(options),
      manifest_(std::move(manifest)),
      segment_count_(segment_count),
      bytes_(manifest_bytes) {}

LogReader::~LogReader() {
  if (file_ >= 0) ::close(file_);
}

// Reads on in the open segment; false at its end, or where reading fails (read_error_).
bool LogReader::fill() {
  if (chunk_at_ < chunk_.size()) return true;
  if (file_ < 0 || read_error_ != 0) return false;
  chunk_.resize(kChunkBytes);
  chunk_at_ = 0;
  ssize_t n;
  do {
    n = ::read(file_, chunk_.data(), chunk_.size());
  } while (n < 0 && errno == EINTR);
  if (n < 0) read_error_ = errno;
  chunk_.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return !chunk_.empty();
}

Status LogReader::open_segment() {
  const std::filesystem::path path = folder_ / segment_name(segment_);
  const bool last = segment_ + 1 == segment_count_;
  if (file_ >= 0) ::close(file_);
  file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) {
    return unreadable("LOG-001", fmt::format("cannot open {}", path.string()), std::strerror(errno),
                      "a readable segment", "check its permissions");
  }
  chunk_.clear();
  chunk_at_ = 0;
  fill();
  size_t consumed = 0;
  auto header = decode_segment_header(chunk_, consumed);
  if (!header) {
    // Killed between creating the segment and writing its header.
    if (header.error() == HeaderError::kTooShort && last && chunk_.size() < kSegmentHeaderBytes) {
      bytes_ += chunk_.size();
      finish(false, fmt::format("{} has no whole header", segment_name(segment_)));
      return Done{};
    }
    return header_error(header.error(), path, chunk_);
  }
  if (header->id != manifest_.id) {
    return unreadable("LOG-008", fmt::format("{} does not belong to this recording", path.string()),
                      fmt::format("recording id {}", to_hex(header->id)),
                      fmt::format("recording id {}", to_hex(manifest_.id)), kRestore);
  }
  const bool follows = header->number == segment_ &&
                       header->first_sequence == frames_reader_.next_sequence() &&
                       header->first_position == frames_reader_.position();
  if (!follows) {
    return unreadable("LOG-007", fmt::format("{} is out of order", path.string()),
                      fmt::format("segment {} from log position {}, frame {}", header->number,
                                  header->first_position.value, header->first_sequence),
                      fmt::format("segment {} from log position {}, frame {}", segment_,
                                  frames_reader_.position().value, frames_reader_.next_sequence()),
                      kRestore);
  }
  // A fresh reader, so that the segment's first frame must be one that stands by itself.
  frames_reader_ = FrameReader(
      {.first_sequence = header->first_sequence, .first_position = header->first_position});
  chunk_at_ = consumed;
  frame_offset_ = consumed;
  bytes_ += consumed;
  ++segment_;
  return Done{};
}

bool LogReader::rest_is_zero() {
  do {
    const auto begin = chunk_.begin() + static_cast<ptrdiff_t>(chunk_at_);
    if (std::any_of(begin, chunk_.end(), [](uint8_t byte) { return byte != 0; })) return false;
    chunk_at_ = chunk_.size();
  } while (fill());
  return true;
}

void LogReader::finish(bool complete, std::string reason) {
  end_ = {true, complete, std::move(reason), position_};
}

Result<bool> LogReader::end_of_segment() {
  const bool last = segment_ == segment_count_;
  const size_t torn = frames_reader_.partial_bytes();
  if (read_error_ != 0) {
    return unreadable("LOG-001", fmt::format("cannot read on in {}", place()),
                      std::strerror(read_error_), "a readable segment", "check the disk");
  }
  if (torn != 0 && end_record_) {
    return unreadable("LOG-013", fmt::format("{} follows the end record", place()),
                      fmt::format("{} bytes", torn), "nothing after the end record", kRestore);
  }
  if (torn == 0 && !last) return true;
  if (torn != 0 && !last) {
    return unreadable("LOG-012", fmt::format("{} is cut short", place()),
                      fmt::format("{} bytes of a frame, then {}", torn, segment_name(segment_)),
                      "whole frames up to the next segment", kRestore);
  }
  if (end_record_) {
    finish(true, fmt::format("end record ({})", name_of(*end_record_)));
  } else if (torn != 0) {
    finish(false, fmt::format("torn frame at {}: {} bytes of it are there", place(), torn));
  } else {
    finish(false, "no end record: the recording was cut off between frames");
  }
  return false;
}

Result<bool> LogReader::next_frame() {
  while (!end_.ended) {
    if (file_ < 0 || (!fill() && segment_ < segment_count_)) {
      if (file_ >= 0) {
        if (auto more = end_of_segment(); !more || !*more) return more;
      } else if (segment_count_ == 0) {
        finish(false, "no segment was written");
        return false;
      }
      if (Status opened = open_segment(); !opened) return opened.error();
      continue;
    }
    if (!fill()) return end_of_segment();
    chunk_at_ += frames_reader_.feed(ByteSpan(chunk_).subspan(chunk_at_));
    auto frame = frames_reader_.next();
    if (!frame) {
      // A crash of the host may leave a tail of zeros where the last frames belonged.
      const bool zeros = frame.error() == FrameError::kBadMagic && segment_ == segment_count_ &&
                         frames_reader_.partial_is_zero() && rest_is_zero();
      if (!zeros || end_record_) return frame_error(frame.error());
      finish(false, fmt::format("zeros from {} on", place()));
      return false;
    }
    if (!frame->has_value()) continue;
    const Frame& whole = **frame;
    if (end_record_) {
      return unreadable("LOG-013", fmt::format("{} follows the end record", place()), "more frames",
                        "nothing after the end record", kRestore);
    }
    ++frames_;
    if ((whole.header.flags & kFrameZstd) != 0) ++compressed_frames_;
    if ((whole.header.flags & kFrameFresh) != 0) decoder_.start_afresh();
    const size_t size = kFrameHeaderBytes + whole.header.stored_bytes;
    frame_offset_ += size;
    bytes_ += size;
    frame_position_ = whole.header.first_position;
    records_reader_ = ByteReader(whole.records);
    return true;
  }
  return false;
}

Result<std::optional<Record>> LogReader::next() {
  if (error_) return *error_;
  for (;;) {
    if (records_reader_.at_end()) {
      auto more = next_frame();
      if (!more) {
        error_ = more.error();
        return *error_;
      }
      if (!*more) return std::optional<Record>();
    }
    auto record = decoder_.decode(records_reader_);
    if (!record) {
      error_ = record_error(record.error());
      return *error_;
    }
    US_CHECK(record->has_value(), "a frame ended early");
    if (end_record_) {
      error_ =
          unreadable("LOG-013", fmt::format("a record before {} follows the end record", place()),
                     type_name(decoder_.last_type()), "nothing after the end record", kRestore);
      return *error_;
    }
    position_ = frame_position_ + records_reader_.position();
    if (std::holds_alternative<Unknown>((*record)->body) && !options_.keep_unknown) {
      ++skipped_;
      continue;
    }
    ++records_;
    if (const auto* end = std::get_if<End>(&(*record)->body)) end_record_ = end->reason;
    return std::move(*record);
  }
}

std::string LogReader::place() const {
  return fmt::format("{} offset {}",
                     (folder_ / segment_name(segment_ == 0 ? 0 : segment_ - 1)).string(),
                     frame_offset_);
}

UserError LogReader::frame_error(FrameError error) const {
  return unreadable(frame_error_id(error), fmt::format("cannot read the frame at {}", place()),
                    describe(error),
                    fmt::format("frame {} at log position {}", frames_reader_.next_sequence(),
                                frames_reader_.position().value),
                    kRestore);
}

UserError LogReader::record_error(RecordError error) const {
  const std::string where =
      fmt::format("cannot read the {} record at log position {} (frame before {})",
                  type_name(decoder_.last_type()), position_.value, place());
  const bool newer = error == RecordError::kUnknownType || error == RecordError::kUnknownFlags;
  return unreadable(record_error_id(error), where, describe(error),
                    newer ? "records that this release knows" : "records within the format",
                    newer ? "use the release of understudy that made the recording" : kRestore);
}

}  // namespace us::log
