#include "replay-engine/landing.h"

#include <algorithm>

namespace us::replay {
namespace {

// Straight code and jump loops between two conditional branches are short in practice; a kicked
// `jmp .` is the long case.
constexpr uint64_t kStepsMax = 500'000'000;

// A lost overflow is noticed by the next stop of any kind; the model makes it this many branches.
constexpr uint64_t kLostAlarmStop = 100'000;

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
    case hv::MachineStop::kIdle: return LandingVerdict::kIdleEarly;
    default: return std::nullopt;
  }
}

std::string describe(const hv::ExecutionPoint& p) {
  return fmt::format("branches {} rip {:#x} rcx {:#x} instructions {}", p.branches.value, p.rip,
                     p.rcx, p.instructions.value);
}

}  // namespace

bool same_point(const hv::ExecutionPoint& here, const hv::ExecutionPoint& target) {
  if (here.branches != target.branches || here.rip != target.rip) return false;
  if (knows_instructions(here) && knows_instructions(target))
    return here.instructions == target.instructions;
  return here.rcx == target.rcx;
}

LandingResult Lander::land(hv::Machine& machine, const hv::ExecutionPoint& target) {
  LandingResult result{.target = target, .margin = profile_.margin};
  if (!same_point(machine.point(), target)) {
    ++counters_.landings;
    const auto early = approach(machine, target);
    result.verdict = early ? *early : walk(machine, target);
    if (result.verdict == LandingVerdict::kOvershoot) ++counters_.overshoots;
  }
  result.reached = machine.point();
  return result;
}

// Phase 1: alarms until the target is within reach of steps.
std::optional<LandingVerdict> Lander::approach(hv::Machine& machine,
                                               const hv::ExecutionPoint& target) {
  for (;;) {
    const Branches here = machine.point().branches;
    if (here > target.branches) return LandingVerdict::kOvershoot;
    const uint64_t left = (target.branches - here).value;
    if (left <= profile_.margin || left - profile_.margin < profile_.minimum_period)
      return std::nullopt;
    const Branches aim = target.branches - profile_.margin;
    std::optional<Branches> stop_at = aim;
    if (profile_.alarm_at) stop_at = profile_.alarm_at(here, aim);
    if (!stop_at) ++counters_.alarms_lost;
    // Without its overflow the guest runs on; something else stops it, late, and that is an
    // overshoot.
    const Branches alarm = stop_at.value_or(target.branches + kLostAlarmStop);
    // Devices that change their timers on the way stop the machine, not the counter.
    for (;;) {
      const hv::MachineStop stop = machine.run({.alarm = alarm});
      if (same_point(machine.point(), target)) return LandingVerdict::kLanded;
      if (const auto end = early_end(stop))
        return past(machine.point(), target) ? LandingVerdict::kOvershoot : end;
      if (stop == hv::MachineStop::kLimit) break;
    }
    ++counters_.alarms;
    const Branches reached = machine.point().branches;
    if (reached > aim) counters_.skid_max = std::max(counters_.skid_max, (reached - aim).value);
    if (reached > target.branches) return LandingVerdict::kOvershoot;
  }
}

// Phase 2: precise stops. One step first, since a delivered interrupt is a step of its own and a
// breakpoint is not checked for the instruction a run starts with; then to the target's address.
LandingVerdict Lander::walk(hv::Machine& machine, const hv::ExecutionPoint& target) {
  uint64_t steps = 0;
  LandingVerdict verdict = LandingVerdict::kLost;
  while (steps < kStepsMax) {
    const hv::ExecutionPoint here = machine.point();
    if (same_point(here, target)) {
      verdict = LandingVerdict::kLanded;
      break;
    }
    if (past(here, target)) {
      verdict = LandingVerdict::kOvershoot;
      break;
    }
    ++steps;
    const hv::MachineStop stop = machine.step();
    if (same_point(machine.point(), target)) continue;
    if (const auto end = early_end(stop)) {
      verdict = *end;
      break;
    }
  }
  counters_.steps += steps;
  counters_.steps_max = std::max(counters_.steps_max, steps);
  return verdict;
}

EndOfInputs LandingResult::end() const {
  const std::string where =
      fmt::format("target: {}; reached: {}", describe(target), describe(reached));
  switch (verdict) {
    case LandingVerdict::kLanded: break;
    case LandingVerdict::kOvershoot:
      return {EndKind::kOvershoot,
              fmt::format("landing ran past its target with a margin of {} branches ({}); measure "
                          "this host's margin with `understudy calibrate -o host.toml`",
                          margin, where)};
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
