// Reads a recording's records in order, across its segments.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "logchannel/frame.h"
#include "logchannel/log_files.h"
#include "logchannel/log_stream.h"

namespace us::log {

struct LogReaderOptions {
  bool keep_unknown = false;  // yield skippable records of unknown types instead of skipping them
};

// A recording that was cut short (kill -9, full disk) ends early with end().complete == false; one
// that was damaged, mixed up or made by another version is an error (LOG-002..LOG-013).
class LogReader : public LogStream {
 public:
  static Result<std::unique_ptr<LogReader>> open(const std::filesystem::path& folder,
                                                 const LogReaderOptions& options = {});
  ~LogReader() override;
  LogReader(const LogReader&) = delete;
  LogReader& operator=(const LogReader&) = delete;

  Result<std::optional<Record>> next() override;
  LogPosition position() const override { return position_; }
  StreamEnd end() const override { return end_; }

  const Manifest& manifest() const { return manifest_; }
  uint64_t frames() const { return frames_; }
  uint64_t compressed_frames() const { return compressed_frames_; }
  uint64_t records() const { return records_; }          // yielded
  uint64_t skipped_records() const { return skipped_; }  // of unknown types
  uint32_t segments() const { return segment_; }         // opened so far
  uint64_t bytes() const {
    return bytes_;
  }  // of the manifest, and of segments: headers, whole frames

 private:
  LogReader(std::filesystem::path folder, const LogReaderOptions& options, Manifest manifest,
            uint32_t segment_count, uint64_t manifest_bytes);
  Status open_segment();
  // Makes the next whole frame current; false at the end of the log.
  Result<bool> next_frame();
  Result<bool> end_of_segment();
  bool rest_is_zero();
  bool fill();
  void finish(bool complete, std::string reason);
  UserError frame_error(FrameError error) const;
  UserError record_error(RecordError error) const;
  std::string place() const;

  std::filesystem::path folder_;
  LogReaderOptions options_;
  Manifest manifest_;
  uint32_t segment_count_;
  uint32_t segment_ = 0;  // number of the next segment to open
  int file_ = -1;
  int read_error_ = 0;
  Bytes chunk_;  // bytes read from the file and not yet fed
  size_t chunk_at_ = 0;
  uint64_t frame_offset_ = 0;  // in the segment, of the frame in the making
  FrameReader frames_reader_;
  RecordDecoder decoder_;
  ByteReader records_reader_{ByteSpan{}};
  LogPosition frame_position_;  // of the current frame's first record
  LogPosition position_;
  StreamEnd end_;
  std::optional<UserError> error_;
  std::optional<EndReason> end_record_;
  uint64_t bytes_;
  uint64_t frames_ = 0, compressed_frames_ = 0, records_ = 0, skipped_ = 0;
};

}  // namespace us::log
