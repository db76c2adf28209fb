// A recording on disk: a directory with a manifest and numbered segments, written front to back.
// Killed or out of space at any moment, it stays readable up to its last whole frame.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "logchannel/frame.h"
#include "logchannel/log_files.h"
#include "logchannel/log_stream.h"

namespace us::log {

struct LogWriterOptions {
  FrameOptions frame;
  uint64_t segment_bytes = 64ull * 1024 * 1024;  // a new segment once one is this long
  // Records wait at most this long in memory while append() or poll() is called; 0: only full
  // buffers and flush() write.
  uint32_t flush_interval_ms = 100;
  uint64_t bytes_max = 0;  // 0: none. See limit_reached().
  std::string created_by = "understudy";
};

class LogWriter : public LogSink {
 public:
  // Makes the directory (parents must exist) and its manifest. A directory that holds a recording
  // is refused, one that is empty is used. LOG-014 on failure.
  static Result<std::unique_ptr<LogWriter>> create(const std::filesystem::path& folder,
                                                   const LogWriterOptions& options = {});
  // Flushes. A recording without its End record is read as truncated.
  ~LogWriter() override;
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  LogPosition append(const Record& record) override;
  // One write() of one frame. After a failed write the torn frame is cut off again, the writer
  // refuses everything further, and the recording is valid up to the frame before (LOG-015).
  Status flush() override;
  Status status() const override;
  LogPosition position() const override { return builder_.position(); }

  // Flushes if flush_interval_ms have passed since the oldest record waiting. For idle times.
  Status poll();
  // Flushes, makes the last segment durable (fdatasync; earlier ones are on their way), and closes.
  // Further appends are a bug.
  Status close();
  // True once the recording has reached bytes_max: time to append the End record and close.
  bool limit_reached() const;

  uint64_t bytes_written() const { return total_bytes_; }  // in files, headers included
  uint64_t records() const { return records_; }
  const RecordingId& id() const { return id_; }

 private:
  LogWriter(std::filesystem::path folder, const LogWriterOptions& options, const RecordingId& id);
  Status open_segment();
  Status write_frame();
  Status fail(const std::string& what, int error_number);
  void close_segment();

  std::filesystem::path folder_;
  LogWriterOptions options_;
  RecordingId id_;
  FrameBuilder builder_;
  int file_ = -1;
  uint32_t segment_ = 0;        // number of the next segment to open
  uint64_t segment_bytes_ = 0;  // of the open segment, whole frames
  LogPosition segment_start_;   // where the next segment to open begins
  bool torn_ = false;           // a torn frame could not be cut off
  uint64_t total_bytes_ = 0;
  uint64_t records_ = 0;
  std::chrono::steady_clock::time_point oldest_waiting_;
  std::optional<UserError> error_;
  bool closed_ = false;
};

}  // namespace us::log
