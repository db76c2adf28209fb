// Where two executions part: by their logs, by executing both again, and from the first epoch that
// differs down to the instruction and the branch.
#pragma once

#include <atomic>
#include <functional>

#include "replay-engine/diverge/report.h"
#include "replay-engine/diverge/side.h"
#include "replay-engine/diverge/symbols.h"

namespace us::replay {

struct DivergeOptions {
  unsigned repeat = 2;              // times that the differing epoch is executed again
  uint64_t look_ahead_epochs = 50;  // after the first difference, for where the paths part
  std::shared_ptr<const Symbols> symbols = nullptr;  // none: what the guest has itself
  const std::atomic<bool>* stop = nullptr;
  // What is done and, where known, how far; may be empty.
  std::function<void(const std::string& what, const hv::ExecutionPoint& at)> progress = {};
};

// Two sides, each executed from its log. Errors: what cannot even be begun (logs, machines). Damage
// further on is a verdict.
Result<DivergeReport> compare_sides(const Side& a, const Side& b, const DivergeOptions& options);
// A recording against its own execution here.
Result<DivergeReport> compare_with_itself(const Side& a, const DivergeOptions& options);

}  // namespace us::replay
