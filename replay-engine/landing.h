// Landing: bringing a machine to an exact recorded point with a counter whose interrupt comes late.
//
// The alarm is set `margin` branches before the target; it arrives late by its skid. From there the
// rest is walked by precise stops: single steps, and breakpoints at the target's address, until
// branches, RIP and RCX match, and, where those repeat, the exact instruction count or a digest of
// more guest state. Running past the target is an overshoot: always reported, never repaired in
// silence.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "hv/core/execution_point.h"
#include "hv/machine.h"
#include "replay-engine/source.h"

namespace us::replay {

struct LandingProfile {
  // Branches before the target at which the alarm is aimed; must exceed the alarm's greatest skid.
  uint64_t margin = 0;
  // The counter cannot be armed for fewer branches than this; nearer targets are walked.
  uint64_t minimum_period = 1;
  // Where the modelled alarm, armed at `now` for `aim`, really stops the guest, in branches; empty:
  // its overflow is lost. No function: exactly at `aim`. Real counters bring their own lateness.
  std::function<std::optional<Branches>(Branches now, Branches aim)> alarm_at;
};

enum class LandingVerdict : uint8_t {
  kLanded,
  kOvershoot,   // the machine is past the target
  kGuestEnded,  // it powered off or failed before the target
  kIdleEarly,   // it went idle before the target: the paths differ
  kLost,        // walked a long way at the target's branch count without meeting it
};

struct LandingResult {
  LandingVerdict verdict = LandingVerdict::kLanded;
  hv::ExecutionPoint reached;
  hv::ExecutionPoint target;
  uint64_t margin = 0;

  bool ok() const { return verdict == LandingVerdict::kLanded; }
  // The run's end that a failed landing means; its detail names points, margin and the way to mend
  // it.
  EndOfInputs end() const;
};

struct LandingCounters {
  uint64_t landings = 0;  // that had to move the machine
  uint64_t alarms = 0;
  uint64_t steps = 0;
  uint64_t steps_max = 0;  // of one landing
  uint64_t overshoots = 0;
  uint64_t alarms_lost = 0;
  uint64_t skid_max = 0;  // branches between the aim and where the alarm stopped
};

class Lander {
 public:
  explicit Lander(LandingProfile profile = {}) : profile_(std::move(profile)) {}

  // Moves the machine to `target` (or finds it there already).
  LandingResult land(hv::Machine& machine, const hv::ExecutionPoint& target);

  const LandingCounters& counters() const { return counters_; }
  const LandingProfile& profile() const { return profile_; }

 private:
  std::optional<LandingVerdict> approach(hv::Machine& machine, const hv::ExecutionPoint& target);
  LandingVerdict walk(hv::Machine& machine, const hv::ExecutionPoint& target);

  LandingProfile profile_;
  LandingCounters counters_;
};

// Whether `here` is `target`: by exact instruction count where both know it, else by RCX too.
bool same_point(const hv::ExecutionPoint& here, const hv::ExecutionPoint& target);

}  // namespace us::replay
