// The two ends of a log. A file, a socket and a buffer in memory are interchangeable behind them.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "base/types.h"
#include "logchannel/record.h"

namespace us::log {

// Where records go. One thread at a time.
class LogSink {
 public:
  virtual ~LogSink() = default;

  // Takes the record (buffered; no system call but when the buffer is full) and returns the log
  // position just after it: once the other end has acknowledged that position, it has the record.
  // Errors are kept and reported by flush() and status(); appending after one is harmless and lost.
  // Precondition: within_bounds(record), and positions in order (see Position).
  virtual LogPosition append(const Record& record) = 0;

  // Hands everything appended so far to the operating system.
  virtual Status flush() = 0;

  // The first error met, if any. Cheap.
  virtual Status status() const = 0;

  // The position after the last record appended.
  virtual LogPosition position() const = 0;
};

// How a log came to its end.
struct StreamEnd {
  bool ended = false;     // nothing will follow
  bool complete = false;  // ended by its End record
  std::string
      reason{};  // one phrase for people: "end record (guest powered off)", "torn frame ..."
  LogPosition position{};  // after the last whole record
};

// Where records come from. One thread at a time.
class LogStream {
 public:
  virtual ~LogStream() = default;

  // The next record, or nothing: for now when !end().ended (a socket), for good when it is. An
  // error is final.
  virtual Result<std::optional<Record>> next() = 0;

  // The position after the record next() returned last.
  virtual LogPosition position() const = 0;

  virtual StreamEnd end() const = 0;
};

}  // namespace us::log
