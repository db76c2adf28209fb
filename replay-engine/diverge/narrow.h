// From an epoch that differs to the instruction where states part and the branch where paths do:
// both sides are executed again from the last place where they agree, in ever smaller strides.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "replay-engine/diverge/epoch_pass.h"
#include "replay-engine/diverge/report.h"

namespace us::replay {

struct Narrowed {
  std::optional<FirstEffect> effect;
  std::optional<Fork> fork;
  Repetition repetition;
  std::vector<std::string> notes;
  std::shared_ptr<const Symbols> symbols;  // the caller's, or the guest's own
};

// Precondition: `pass` differs between the two executions. Errors: those of starting walkers.
Result<Narrowed> narrow(const Side& a, const Side& b, const PassResult& pass,
                        const DivergeOptions& options);
// Executes the epoch after the last agreeing one again, against its log.
Result<Repetition> repeat_against_log(const Side& a, const PassResult& pass,
                                      const DivergeOptions& options);

}  // namespace us::replay
