// Landing: bringing a machine to an exact recorded point with a counter whose interrupt comes late.
//
// The alarm is set `margin` branches before the target; it arrives late by its skid. From there the
// rest is walked by precise stops: breakpoints at the target's address, and a single step off each
// that is not the target yet, until branches and RIP match, and where those repeat, the exact
// instruction count or, where the backend has none, RCX and a digest of more guest state. Running
// past the target is an overshoot: always reported, never repaired in silence.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "hv/core/execution_point.h"
#include "hv/machine.h"
#include "pmu/counter.h"
#include "pmu/profile.h"
#include "pmu/trouble.h"
#include "replay-engine/source.h"

namespace us::replay {

struct LandingProfile {
  // Branches before the target at which the alarm is aimed; must exceed the alarm's greatest skid.
  uint64_t margin = 0;
  // The counter cannot be armed for fewer branches than this; nearer targets are walked.
  uint64_t minimum_period = 1;
  // Clock and alarm. Where the backend knows the count by other means as well, the clock is held
  // against it at every stop. None: the processor's own alarm, which is exact.
  std::shared_ptr<pmu::Counter> counter = nullptr;
};

// What a host's profile means for a machine on the software processor, its counter modelled after
// the profile's [model] table. The machine outlives it.
LandingProfile landing_profile(const pmu::HostProfile& profile, hv::Machine& machine);

// A digest of guest state beyond branches, RIP and RCX, for the places that repeat those: general
// registers, flags, CR2, CR3, the words on top of the stack (an exception's frame is there), and
// how many interrupts came since the last input.
uint32_t tie_of(hv::Machine& machine);

struct LandingTarget {
  hv::ExecutionPoint point;
  std::optional<uint32_t> tie = std::nullopt;  // where instructions are not counted
};

enum class LandingVerdict : uint8_t {
  kLanded,
  kOvershoot,   // the machine is past the target
  kMiscount,    // the counter's clock is not the guest's
  kGuestEnded,  // it powered off or failed before the target
  kHostFailed,  // its vCPU cannot run on
  kIdleEarly,   // it went idle before the target: the paths differ
  kLost,        // walked a long way at the target's branch count without meeting it
};

struct LandingResult {
  LandingVerdict verdict = LandingVerdict::kLanded;
  hv::ExecutionPoint reached;
  hv::ExecutionPoint target;
  pmu::LandingTrouble trouble;  // what its counter did; for kOvershoot and kMiscount
  std::optional<UserError> failure = std::nullopt;  // for kHostFailed

  bool ok() const { return verdict == LandingVerdict::kLanded; }
  // The run's end that a failed landing means; its detail names points, margin and the way to mend
  // it, its error is that of pmu::explain.
  EndOfInputs end() const;
};

struct LandingCounters {
  uint64_t landings = 0;  // that had to move the machine
  uint64_t alarms = 0;
  uint64_t steps = 0;      // precise stops: steps and breakpoints
  uint64_t steps_max = 0;  // of one landing
  uint64_t overshoots = 0;
  uint64_t alarms_lost = 0;
  uint64_t skid_max = 0;  // branches between the aim and where the alarm stopped
};

class Lander {
 public:
  explicit Lander(LandingProfile profile = {}) : profile_(std::move(profile)) {}

  // Moves the machine to `target` (or finds it there already).
  LandingResult land(hv::Machine& machine, const LandingTarget& target);
  LandingResult land(hv::Machine& machine, const hv::ExecutionPoint& point) {
    return land(machine, LandingTarget{point});
  }

  // Moves the machine on to the first instruction after so many conditional branches, where no
  // input is due before. A late alarm's margin is walked by single steps: there is no address to
  // stop at.
  LandingResult go_to(hv::Machine& machine, Branches place);

  const LandingCounters& counters() const { return counters_; }
  const LandingProfile& profile() const { return profile_; }
  // What the counter did so far, for a report of a divergence: whether it can be believed.
  std::string health_text() const;

 private:
  std::optional<LandingVerdict> approach(hv::Machine& machine, const LandingTarget& target);
  std::optional<LandingVerdict> await_alarm(hv::Machine& machine, const LandingTarget& target,
                                            Branches aim);
  LandingVerdict walk(hv::Machine& machine, const LandingTarget& target);
  bool may_be_past(const hv::ExecutionPoint& here, const hv::ExecutionPoint& target) const;
  bool miscounts(hv::Machine& machine);

  LandingProfile profile_;
  LandingCounters counters_;
  pmu::LandingTrouble trouble_;  // of the landing under way
  uint64_t long_skid_max_ = 0;   // of alarms that no minimum period can have delayed
};

// Whether the machine stands at `target`: by exact instruction count where both know it, else by
// RCX, and by the tie where the target has one.
bool at_target(hv::Machine& machine, const LandingTarget& target);

}  // namespace us::replay
