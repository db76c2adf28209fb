// A side's execution under control: runs to a branch, to an epoch's end or by single steps, applies
// the log's inputs at their points and plants the side's faults on the way.
#pragma once

#include <memory>
#include <string>

#include "replay-engine/diverge/report.h"
#include "replay-engine/diverge/side.h"
#include "replay-engine/landing.h"
#include "replay-engine/witness.h"

namespace us::replay {

enum class WalkStop : uint8_t {
  kBranches,  // the count asked for is reached
  kEpoch,     // at the end of an epoch, which pass_epoch() leaves behind
  kStepped,
  kEnd,   // the log is over: see Walker::end()
  kLost,  // the next input's point was not met, or the guest ended early: see Walker::landing()
};

struct WalkOptions {
  // Land with the side's counter as a replay would; else by exact counts.
  bool with_counter = false;
};

class Walker {
 public:
  // A fresh machine where the side's log begins. Errors: those of the side's functions.
  static Result<std::unique_ptr<Walker>> start(const Side& side, const WalkOptions& options = {});

  // Runs until `branches` have retired, an epoch ends, or nothing more can be done.
  WalkStop run(Branches branches);
  // To the next epoch's end.
  WalkStop run_to_epoch() { return run(Branches(~uint64_t{0})); }
  // The inputs due here, then one instruction, delivered interrupt or fault. Epoch ends are passed
  // over. Past the point of an input that was not met it goes on without inputs.
  WalkStop step();

  // Precondition: run() said kEpoch.
  const EpochCheck& epoch();
  void pass_epoch();
  const EndOfInputs& end() const { return end_; }
  const LandingResult& landing() const { return landing_; }
  std::string lost_text() const;

  // Traces the machine from here on; false: it cannot be. `raw` gets the bytes too.
  bool trace(std::function<void(ByteSpan)> raw = {});
  // All of the trace has been handed over afterwards.
  void end_trace() { witness_.reset(); }
  bool traced() const { return witness_ != nullptr; }
  // The path since the last call, or since trace(). Precondition: traced().
  ipt::EpochDigest cut_trace(uint64_t epoch) { return witness_->cut(epoch); }
  // What the log says of the trace of the epoch that ends here; encoded, as it came.
  const std::optional<Bytes>& recorded_trace() const { return recorded_trace_; }

  hv::Machine& machine() { return *machine_; }
  const hv::Machine& machine() const { return *machine_; }
  const Lander& lander() const { return lander_; }
  // So far, at most kLandingSamplesMax.
  std::vector<LandingSample> take_landings() { return std::move(landings_); }
  Feed& feed() { return feed_; }
  uint64_t inputs_applied() const { return inputs_; }
  uint64_t faults_planted() const { return faults_.done(); }

  // A copy of the state here, from which walkers can start as often as wanted.
  struct Checkpoint;
  std::shared_ptr<const Checkpoint> checkpoint();
  static Result<std::unique_ptr<Walker>> resume(const Checkpoint& from);

 private:
  Walker(std::unique_ptr<NoOutputs> outputs, std::unique_ptr<hv::Machine> machine, Feed feed,
         FaultInjector faults, LandingProfile profile);
  std::optional<WalkStop> advance(const hv::ExecutionPoint& point, Branches branches);
  WalkStop lost(LandingVerdict verdict, const hv::ExecutionPoint& target);
  bool apply_due();

  std::unique_ptr<NoOutputs> outputs_;
  std::unique_ptr<hv::Machine> machine_;
  Feed feed_;
  FaultInjector faults_;
  Lander lander_;
  EndOfInputs end_;
  LandingResult landing_;
  std::optional<Bytes> recorded_trace_;
  std::unique_ptr<Witness> witness_;  // goes before the machine does
  std::vector<LandingSample> landings_;
  uint64_t inputs_ = 0;
  bool strayed_ = false;  // past an input's point without having met it
};

struct Walker::Checkpoint {
  Bytes snapshot;
  Feed feed;
  FaultInjector faults;
};

}  // namespace us::replay
