// One of the two executions that are compared: what is needed to make it happen again, as often as
// wanted.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "logchannel/log_stream.h"
#include "pmu/profile.h"
#include "replay-engine/diverge/fault_plan.h"
#include "replay-engine/log_source.h"

namespace us::replay {

struct Side {
  std::string name;  // for people: "A (DIR)"
  std::function<Result<std::unique_ptr<log::LogStream>>()> open_log;
  // A machine as it was where the log begins.
  std::function<Result<std::unique_ptr<hv::Machine>>(hv::OutputSink&)> make_machine;
  LogSource::ReRead re_read = {};
  // The counter that a replay on this side lands with. The passes that look for the exact place use
  // the processor's own count instead.
  std::optional<pmu::HostProfile> profile = std::nullopt;
  std::vector<Fault> plan = {};
};

// Takes outputs and drops them.
class NoOutputs final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}
};

// The inputs and epoch ends of a side's log, in order. Copies share one reader; what lies past the
// mark is kept, so that a copy made there can be read again.
class Feed {
 public:
  // From the first record that is no section. Errors: those of open_log and of its stream.
  static Result<Feed> open(const Side& side);

  // What comes next; the last is an EndOfInputs, for ever.
  const Next& peek(hv::Machine& machine);
  void pop();
  // The epoch whose end comes next, if one does within a few thousand records.
  std::optional<uint64_t> epoch_ahead(hv::Machine& machine);
  // From here on everything is kept. Bounded by kept_bytes().
  void mark();
  // Bytes of frames, disk data and console text that are kept.
  uint64_t kept_bytes() const;
  // The end record's digest and point, once it was met.
  std::optional<log::End> end_record() const;
  // Errors of reading, where the log ended by one.
  std::optional<UserError> error() const;

 private:
  struct Shared;
  const Next& peek_at(hv::Machine& machine, uint64_t at);

  std::shared_ptr<Shared> shared_;
  uint64_t at_ = 0;  // ordinal of the next
};

}  // namespace us::replay
