// Both sides executed epoch by epoch, until the first that differs.
#pragma once

#include <optional>

#include "replay-engine/diverge/diverge.h"
#include "replay-engine/diverge/walker.h"

namespace us::replay {

enum class PassOutcome : uint8_t {
  kEqual,      // to the end of both logs
  kDiffers,    // the executions differ from one another
  kRecordedA,  // both executions agree, but a's log says otherwise
  kRecordedB,
  kEnded,    // one side ended or strayed where the other did not, or both
  kCounter,  // a side's landing failed by its counter
  kStopped,  // on request
};

struct PassResult {
  PassOutcome outcome = PassOutcome::kEqual;
  Place last_agreeing, first_differing;
  std::string differs;
  std::optional<StateDigests> seen_a, seen_b;  // at the end of the differing epoch, where reached
  uint64_t epochs = 0;                         // that agreed
  std::string detail;                          // of kEnded and kCounter
  std::optional<UserError> error;
  std::string counter_a, counter_b;
  std::optional<UserError> log_error;  // where a log could not be read to its end
  TraceFinding trace;
  std::vector<LandingSample> landings_a, landings_b;
};

struct PassOptions {
  bool with_counter = false;
  bool traced = true;  // one side alone: its log has traces; two are always traced
};

Result<PassResult> run_epochs(const Side& a, const Side& b, const PassOptions& pass,
                              const DivergeOptions& options);
// One side against its own log.
Result<PassResult> run_epochs(const Side& a, const PassOptions& pass,
                              const DivergeOptions& options);

// Whether a log's digests are these; what differs, else empty.
std::string differing(const EpochDigests& recorded, const StateDigests& seen);

}  // namespace us::replay
