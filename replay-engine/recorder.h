// Writes what is applied to a machine into a log.
#pragma once

#include <functional>

#include "logchannel/log_stream.h"
#include "replay-engine/run_loop.h"
#include "replay-engine/witness.h"

namespace us::replay {

class Recorder final : public InputObserver {
 public:
  // `limit_reached` says when the log has become as long as it may; empty: never. `witness`: traces
  // the machine that is recorded; null: its trace is not looked at. All outlive it.
  explicit Recorder(log::LogSink& sink, std::function<bool()> limit_reached = {},
                    Witness* witness = nullptr);

  bool before_apply(hv::Machine& machine, const StampedInput& input, EndOfInputs& why) override;
  bool at_epoch(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) override;

  // A named section of the machine's description, before the first input.
  void add_section(std::string_view name, ByteSpan data);
  // Closes the log's story: digests, totals, why it ended.
  void finish(hv::Machine& machine, const EndOfInputs& end);

  uint64_t records() const { return records_; }
  uint64_t epochs() const { return epochs_; }
  Digest final_digest() const { return final_digest_; }
  const WitnessCounters& traced() const { return traced_; }

 private:
  bool append(hv::Machine& machine, log::Record record, EndOfInputs& why);
  bool append_trace(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why);

  log::LogSink& sink_;
  std::function<bool()> limit_reached_;
  Witness* witness_;
  WitnessCounters traced_;
  uint64_t records_ = 0;
  uint64_t epochs_ = 0;
  Digest final_digest_;
};

}  // namespace us::replay
