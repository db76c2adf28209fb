#include "replay-engine/landing.h"

#include <algorithm>

#include "pmu/model.h"

namespace us::replay {
namespace {

// Straight code and jump loops between two conditional branches are short in practice; a kicked
// `jmp .` is the long case.
constexpr uint64_t kStepsMax = 500'000'000;

// A lost overflow is noticed by the next stop of any kind; the model makes it this many branches.
constexpr uint64_t kLostAlarmStop = 100'000;

// No part raises periods above this (pmu/quirks.h).
constexpr uint64_t kLongPeriod = 128;

bool knows_instructions(const hv::ExecutionPoint& p) { return p.instructions.value != 0; }

bool past(const hv::ExecutionPoint& here, const hv::ExecutionPoint& target) {
  if (here.branches != target.branches) return here.branches > target.branches;
  return knows_instructions(here) && knows_instructions(target) &&
         here.instructions > target.instructions;
}

// Stops that end a landing short of its target; empty: go on.
std::optional<LandingVerdict> early_end(hv::MachineStop stop) {
  switch (stop) {
    case hv::MachineStop::kPower:
    case hv::MachineStop::kShutdown: return LandingVerdict::kGuestEnded;
    case hv::MachineStop::kFailed: return LandingVerdict::kHostFailed;
    case hv::MachineStop::kIdle: return LandingVerdict::kIdleEarly;
    default: return std::nullopt;
  }
}

std::string describe(const hv::ExecutionPoint& p) {
  return fmt::format("branches {} rip {:#x} rcx {:#x} instructions {}", p.branches.value, p.rip,
                     p.rcx, p.instructions.value);
}

}  // namespace

LandingProfile landing_profile(const pmu::HostProfile& profile, hv::Machine& machine) {
  LandingProfile landing{.margin = profile.margin, .minimum_period = profile.minimum_period};
  // The software processor does not count taken branches apart: three in four is what a model of
  // the wrong event code has to show.
  const auto retired = [&machine] {
    const uint64_t branches = machine.point().branches.value;
    return pmu::Retired{.conditional = branches, .taken = branches - branches / 4};
  };
  if (profile.model)
    landing.counter = std::make_shared<pmu::PmuModel>(pmu::model_options(profile), retired);
  return landing;
}

bool at_target(hv::Machine& machine, const LandingTarget& target) {
  const hv::ExecutionPoint here = machine.point();
  const hv::ExecutionPoint& point = target.point;
  if (here.branches != point.branches || here.rip != point.rip) return false;
  // Zero here is a count too, of a guest that has not begun; in a target it says "not counted".
  const bool counts = machine.vcpu().caps().counts_instructions;
  if (counts && knows_instructions(point)) return here.instructions == point.instructions;
  return here.rcx == point.rcx && (!target.tie || *target.tie == tie_of(machine));
}

LandingResult Lander::land(hv::Machine& machine, const LandingTarget& target) {
  LandingResult result{.target = target.point};
  if (!at_target(machine, target)) {
    ++counters_.landings;
    trouble_ = {.margin = profile_.margin, .skid_seen = long_skid_max_};
    const auto early = approach(machine, target);
    result.verdict = early ? *early : walk(machine, target);
    if (result.verdict == LandingVerdict::kOvershoot) ++counters_.overshoots;
    const Branches here = machine.point().branches;
    if (here > target.point.branches) trouble_.past_target = (here - target.point.branches).value;
    result.trouble = trouble_;
  }
  result.reached = machine.point();
  if (result.verdict == LandingVerdict::kHostFailed) result.failure = machine.vcpu().failure();
  return result;
}

std::string Lander::health_text() const {
  return fmt::format("{} landings, {} overshoots; {}", counters_.landings, counters_.overshoots,
                     profile_.counter != nullptr ? pmu::to_text(profile_.counter->health())
                                                 : "the processor's own exact counter");
}

// Phase 1: alarms until the target is within reach of precise stops.
std::optional<LandingVerdict> Lander::approach(hv::Machine& machine, const LandingTarget& target) {
  for (;;) {
    if (miscounts(machine)) return LandingVerdict::kMiscount;
    const Branches here = machine.point().branches;
    if (here > target.point.branches) return LandingVerdict::kOvershoot;
    const uint64_t left = (target.point.branches - here).value;
    if (left <= profile_.margin || left - profile_.margin < profile_.minimum_period)
      return std::nullopt;
    const Branches aim = target.point.branches - profile_.margin;
    trouble_.period = (aim - here).value;
    trouble_.late_by = 0;
    const auto end = await_alarm(machine, target, aim);
    const Branches reached = machine.point().branches;
    if (reached > aim) trouble_.late_by = (reached - aim).value;
    if (end && *end != LandingVerdict::kLanded && may_be_past(machine.point(), target.point))
      return LandingVerdict::kOvershoot;
    if (end) return end;
    ++counters_.alarms;
    if (trouble_.period >= kLongPeriod) long_skid_max_ = std::max(long_skid_max_, trouble_.late_by);
    counters_.skid_max = std::max(counters_.skid_max, trouble_.late_by);
  }
}

// Runs until the alarm for `aim` has come, or is known not to come; a verdict ends the landing.
std::optional<LandingVerdict> Lander::await_alarm(hv::Machine& machine, const LandingTarget& target,
                                                  Branches aim) {
  pmu::Counter* counter = profile_.counter.get();
  Branches stop_at = aim;
  bool coming = true;
  if (counter != nullptr) {
    const uint64_t throttled_before = counter->health().throttled;
    coming = counter->arm(machine.point().branches, aim).ok();
    trouble_.throttled = counter->health().throttled != throttled_before;
    if (counter->modelled()) {
      const auto at = counter->interrupt_at();
      coming = at.has_value();
      // Without its overflow the guest runs on; something else stops it, late.
      stop_at = at ? Branches(*at) : target.point.branches + kLostAlarmStop;
    }
  }
  trouble_.missed = !coming;
  if (!coming) ++counters_.alarms_lost;
  std::optional<LandingVerdict> verdict;
  // Devices that change their timers on the way stop the machine, not the counter.
  for (;;) {
    const hv::MachineStop stop = machine.run({.alarm = stop_at});
    if (at_target(machine, target)) {
      verdict = LandingVerdict::kLanded;
    } else {
      verdict = early_end(stop);
    }
    if (verdict || stop == hv::MachineStop::kLimit) break;
  }
  if (counter == nullptr) return verdict;
  if (coming && machine.point().branches >= stop_at) {
    counter->on_interrupt();
  } else {
    counter->disarm();
  }
  return verdict;
}

// Real counters can be held against the processor's own count only where there is one: here on the
// software processor, with Intel PT by the number of branch bits in the trace.
bool Lander::miscounts(hv::Machine& machine) {
  if (profile_.counter == nullptr) return false;
  const auto counted = profile_.counter->read();
  trouble_.retired = machine.point().branches.value;
  trouble_.counted = counted.ok() ? std::optional(counted->value) : std::nullopt;
  return trouble_.counted && *trouble_.counted != trouble_.retired;
}

// Phase 2: precise stops. A step off the place where the guest stands, since a delivered interrupt
// is a step of its own and a breakpoint is not checked for the instruction a run starts with; then
// to the target's address, no further than the branch after the target's.
LandingVerdict Lander::walk(hv::Machine& machine, const LandingTarget& target) {
  const hv::RunRequest to_address{
      .alarm = target.point.branches + 1, .has_breakpoint = true, .breakpoint = target.point.rip};
  uint64_t steps = 0;
  LandingVerdict verdict = LandingVerdict::kLost;
  for (bool step = true; steps < kStepsMax; ++steps, step = !step) {
    if (at_target(machine, target)) {
      verdict = LandingVerdict::kLanded;
      break;
    }
    if (past(machine.point(), target.point)) {
      verdict = LandingVerdict::kOvershoot;
      break;
    }
    if (!step && machine.point().rip == target.point.rip) continue;
    const hv::MachineStop stop = step ? machine.step() : machine.run(to_address);
    if (at_target(machine, target)) continue;
    if (const auto end = early_end(stop)) {
      verdict = *end;
      break;
    }
  }
  counters_.steps += steps;
  counters_.steps_max = std::max(counters_.steps_max, steps);
  if (verdict != LandingVerdict::kLanded && may_be_past(machine.point(), target.point))
    return LandingVerdict::kOvershoot;
  return verdict;
}

LandingResult Lander::go_to(hv::Machine& machine, Branches place) {
  LandingResult result{.target = {.branches = place}};
  const bool exact = machine.vcpu().caps().exact_alarm;
  trouble_ = {.margin = exact ? 0 : profile_.margin};
  const uint64_t reach = trouble_.margin + (exact ? 1 : profile_.minimum_period);
  std::optional<LandingVerdict> early;
  while (!early && machine.point().branches + reach <= place) {
    const Branches aim = place - trouble_.margin, here = machine.point().branches;
    early = early_end(machine.run({.alarm = aim}));
    trouble_.period = (aim - here).value;
    if (machine.point().branches > aim) trouble_.late_by = (machine.point().branches - aim).value;
  }
  for (uint64_t steps = 0; !early && machine.point().branches < place; ++steps)
    early = steps == kStepsMax ? LandingVerdict::kLost : early_end(machine.step());
  const Branches here = machine.point().branches;
  if (here < place) result.verdict = early.value();
  if (here > place) {
    result.verdict = LandingVerdict::kOvershoot;
    trouble_.past_target = (here - place).value;
    ++counters_.overshoots;
  }
  result.reached = machine.point();
  result.trouble = trouble_;
  if (result.verdict == LandingVerdict::kHostFailed) result.failure = machine.vcpu().failure();
  return result;
}

// Without counted instructions the target's branch count may hold the machine on either side of the
// target: one that sleeps there has not slept too early if its alarm came later than the margin.
bool Lander::may_be_past(const hv::ExecutionPoint& here, const hv::ExecutionPoint& target) const {
  if (past(here, target)) return true;
  if (here.branches != target.branches) return false;
  if (knows_instructions(here) && knows_instructions(target)) return false;
  return trouble_.late_by > 0 && trouble_.late_by >= profile_.margin;
}

EndOfInputs host_failed(const std::optional<UserError>& failure) {
  US_CHECK(failure, "a vCPU failed without a reason");
  return {EndKind::kHostFailed,
          fmt::format("{} [{}]: {}", failure->what, failure->id, failure->seen), failure};
}

EndOfInputs LandingResult::end() const {
  const std::string where =
      fmt::format("target: {}; reached: {}", describe(target), describe(reached));
  switch (verdict) {
    case LandingVerdict::kLanded: break;
    case LandingVerdict::kOvershoot: {
      const UserError error = pmu::explain(trouble);
      return {EndKind::kOvershoot,
              fmt::format("landing ran past its target with a margin of {} branches [{}] ({})",
                          trouble.margin, error.id, where),
              error};
    }
    case LandingVerdict::kMiscount: {
      const UserError error = pmu::explain(trouble);
      return {EndKind::kMiscount, fmt::format("{} [{}] ({})", error.what, error.id, where), error};
    }
    case LandingVerdict::kHostFailed: return host_failed(failure);
    case LandingVerdict::kGuestEnded:
      return {EndKind::kDiverged, "the guest ended before the next input's point (" + where + ")"};
    case LandingVerdict::kIdleEarly:
      return {EndKind::kDiverged,
              "the guest went idle before the next input's point (" + where + ")"};
    case LandingVerdict::kLost:
      return {EndKind::kDiverged, "the next input's point was never met (" + where + ")"};
  }
  US_CHECK(false, "a landing that worked ends nothing");
}

}  // namespace us::replay
