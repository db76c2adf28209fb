// Why a landing failed as far as its counter tells: the engine says what it saw, this says which of
// the known troubles of counters it is, and how to mend it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "pmu/counter.h"

namespace us::pmu {

// One alarm on the way to a target, in branches.
struct LandingTrouble {
  uint64_t margin = 0;
  uint64_t past_target = 0;  // how far past the target the guest is
  uint64_t period = 0;       // what the last alarm was armed for; 0: none was
  uint64_t late_by = 0;      // how late it came, against its aim
  uint64_t skid_seen = 0;    // the latest that alarms with long periods have been so far
  bool missed = false;       // it never came: something else stopped the guest
  bool throttled = false;    // it was silenced for a while
  // The counter's reading and what the guest has really retired, where the two can be compared.
  std::optional<uint64_t> counted;
  uint64_t retired = 0;
};

// PMU-016 the counter is not exact, PMU-013 an overflow was lost, PMU-014 the alarm was throttled,
// PMU-015 the part raises short periods, PMU-011 the margin is too small: the first that fits.
UserError explain(const LandingTrouble& trouble);

}  // namespace us::pmu
