// A log in memory: the frames of a sink are the bytes of a stream. For tests, and for running both
// sides of a pair in one process.
#pragma once

#include <vector>

#include "logchannel/frame.h"
#include "logchannel/log_stream.h"

namespace us::log {

class MemorySink : public LogSink {
 public:
  explicit MemorySink(const FrameOptions& options = {}) : builder_(options) {}

  LogPosition append(const Record& record) override;
  Status flush() override;
  Status status() const override { return Done{}; }
  LogPosition position() const override { return builder_.position(); }

  // Whole frames flushed so far.
  const Bytes& bytes() const { return bytes_; }

 private:
  FrameBuilder builder_;
  Bytes bytes_;
};

// Reads what a MemorySink made. Sees what the sink flushed later; ends with the End record.
class MemoryStream : public LogStream {
 public:
  // Precondition: `bytes` (a sink's) outlives the stream.
  explicit MemoryStream(const Bytes& bytes) : bytes_(&bytes) {}

  Result<std::optional<Record>> next() override;
  LogPosition position() const override { return position_; }
  StreamEnd end() const override { return end_; }

 private:
  const Bytes* bytes_;
  size_t fed_ = 0;
  FrameReader frames_;
  RecordDecoder decoder_;
  ByteReader records_{ByteSpan{}};
  LogPosition frame_position_;
  LogPosition position_;
  StreamEnd end_;
};

}  // namespace us::log
