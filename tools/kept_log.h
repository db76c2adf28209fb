// What a secondary received, kept on disk as a recording, so that a divergence can be looked into
// after its session: the VM's description and state, then the log's records.
#pragma once

#include <memory>
#include <string>

#include "logchannel/log_stream.h"
#include "logchannel/log_writer.h"

namespace us::tools {

// Passes a stream's records on and keeps a copy of each.
class KeptLog final : public log::LogStream {
 public:
  // `folder` must not hold a recording yet. Errors: those of LogWriter::create. `inner` outlives
  // the object.
  static Result<std::unique_ptr<KeptLog>> create(const std::string& folder, log::LogStream& inner);
  // Removes the copy unless keep() was called: a session that ended well has nothing to explain.
  ~KeptLog() override;

  Result<std::optional<log::Record>> next() override;
  LogPosition position() const override { return inner_.position(); }
  log::StreamEnd end() const override { return inner_.end(); }

  // Ends the copy with a note of why it is kept. Errors: those of LogWriter::close.
  Status keep(const std::string& why);
  const std::string& folder() const { return folder_; }

 private:
  KeptLog(std::string folder, log::LogStream& inner, std::unique_ptr<log::LogWriter> writer)
      : folder_(std::move(folder)), inner_(inner), writer_(std::move(writer)) {}

  const std::string folder_;
  log::LogStream& inner_;
  std::unique_ptr<log::LogWriter> writer_;
  log::Position last_{};
  bool kept_ = false;
};

// The machine's state as a stream of bytes out of a log's "snapshot" sections. `next` holds the
// first of them, and afterwards the record behind the last that was needed.
class StateReader {
 public:
  StateReader(log::LogStream& log, std::optional<log::Record>& next) : log_(log), next_(next) {}
  // Fills all of `out`; false: the state ends early.
  bool read(std::span<uint8_t> out);

 private:
  bool advance();

  log::LogStream& log_;
  std::optional<log::Record>& next_;
  Bytes current_;
  size_t at_ = 0;
};

}  // namespace us::tools
