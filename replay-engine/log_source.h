// A log as a source of inputs, and the observer that compares what is replayed with what was
// recorded.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "logchannel/log_stream.h"
#include "replay-engine/run_loop.h"
#include "replay-engine/witness.h"

namespace us::replay {

// Sections at the start of a log, by name.
using Sections = std::map<std::string, Bytes>;

// Reads a log's sections up to its first input, which stays for the LogSource built on the stream.
// Errors: the stream's own; LOG-021 sections broken or too large.
struct LogOpening {
  Sections sections;
  std::optional<log::Record> first;
};
Result<LogOpening> read_opening(log::LogStream& stream);

class LogSource final : public InputSource {
 public:
  // Resolves a read that is to be repeated from an unchanged disk image; its error, and such a
  // record where there is no function, end the replay with kLogUnusable.
  using ReRead =
      std::function<Result<Bytes>(uint8_t device, uint64_t offset, uint64_t length, uint32_t crc)>;

  LogSource(log::LogStream& stream, std::optional<log::Record> first, ReRead re_read = {});

  Next next(hv::Machine& machine) override;
  std::optional<uint32_t> tie() const override { return tie_; }

  // Stop before the first input at or past this branch count (`--goto`).
  void stop_at(Branches point) { stop_at_ = point; }
  // From any thread: end before the next record.
  void request_stop() { stop_ = true; }

  // Whether it ended at the place of stop_at(): the next record is there or further on.
  bool stopped_at_place() const { return stopped_at_place_; }

  // The end record, once it was met.
  const std::optional<log::Record>& end_record() const { return end_record_; }
  // Records taken, and the log position after the last of them; 0 before the first.
  uint64_t records() const { return records_; }
  LogPosition position() const { return position_; }
  bool done() const { return done_; }

 private:
  Next end_of_log(log::Record record);
  std::optional<EndOfInputs> resolve(log::Record& record);

  log::LogStream& stream_;
  std::optional<log::Record> pending_;
  ReRead re_read_;
  std::optional<Branches> stop_at_;
  std::optional<log::Record> end_record_;
  std::optional<Next> after_landing_;
  uint64_t records_ = 0;
  LogPosition position_;
  std::optional<uint32_t> tie_;
  bool done_ = false;
  bool stopped_at_place_ = false;
  std::atomic<bool> stop_{false};
};

// Compares digests at every epoch: of the path where the log has them and there is a witness, then
// of the state.
class Verifier final : public InputObserver {
 public:
  // `witness` traces the machine that replays, and outlives it; null: paths are not compared.
  explicit Verifier(Witness* witness = nullptr)
      : witness_(witness != nullptr && witness->checks() ? witness : nullptr) {}

  bool before_apply(hv::Machine& machine, const StampedInput& input, EndOfInputs& why) override;
  bool at_epoch(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) override;

  uint64_t verified_epochs() const { return verified_; }
  const WitnessCounters& traced() const { return traced_; }
  // The point of the last epoch that agreed (the start, before the first).
  const hv::ExecutionPoint& last_agreeing() const { return last_agreeing_; }
  // What agreed in the replay that this one goes on from.
  void go_on_from(const hv::ExecutionPoint& last_agreeing) { last_agreeing_ = last_agreeing; }
  // Called after each input, for progress; may be empty.
  void set_progress(std::function<void(const hv::ExecutionPoint&)> f) { progress_ = std::move(f); }

 private:
  bool check_trace(const EpochCheck& check, EndOfInputs& why);
  EndOfInputs diverged(const EpochCheck& check, const std::string& in) const;

  Witness* witness_;
  WitnessCounters traced_;
  uint64_t verified_ = 0;
  hv::ExecutionPoint last_agreeing_;
  std::function<void(const hv::ExecutionPoint&)> progress_;
};

}  // namespace us::replay
