#include "calib/perf_experiment_host.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "pmu/host_identity.h"

namespace us::calib {
namespace {

using Clock = std::chrono::steady_clock;

UserError lost() {
  return {.id = "CAL-006",
          .exit_code = ExitCode::kHostCannot,
          .what = "the branch counter was taken away while it was measured",
          .seen = "perf says the event lost its counter, or shared it",
          .needed = "two counters to itself",
          .mend = "end who else holds the PMU (`perf`, the NMI watchdog), and measure again"};
}

double ns_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

}  // namespace

Result<std::unique_ptr<PerfExperimentHost>> PerfExperimentHost::open(pmu::PerfHost& perf,
                                                                     const pmu::EventRow& row,
                                                                     CodeRunner& code) {
  std::unique_ptr<PerfExperimentHost> host(new PerfExperimentHost(row, code));
  auto counter = pmu::PerfCounter::open(
      perf, row, {.signal = code.alarm_signal(), .period_min = 1, .scope = pmu::EventScope::kUser});
  if (!counter.ok()) return counter.error();
  host->counter_ = std::move(counter).value();
  code.on_alarm([raw = host.get()] {
    const auto now = raw->counter_->read();
    if (raw->came_ || !now.ok()) return;
    raw->came_at_ = now->value;
    raw->came_ = true;
    raw->stop_ = 1;
  });
  if (Status s = host->measure_own_branches(); !s.ok()) return s.error();
  return host;
}

PerfExperimentHost::~PerfExperimentHost() { code_.on_alarm({}); }

pmu::HostIdentity PerfExperimentHost::identity() const { return pmu::this_host(); }

Result<uint64_t> PerfExperimentHost::reading() {
  const auto now = counter_->read();
  if (!now.ok()) return lost();
  return now->value;
}

// The commonest difference of two readings around one round of code, less the round: an interrupt
// now and then must not count.
Status PerfExperimentHost::measure_own_branches() {
  std::map<uint64_t, int> seen;
  for (int i = 0; i < 101; ++i) {
    const auto before = reading();
    const pmu::Retired retired = run(Shape::kMixed, 1, nullptr);
    const auto after = reading();
    if (!before.ok()) return before.error();
    if (!after.ok()) return after.error();
    const uint64_t counted = *after - *before;
    ++seen[counted > retired.conditional ? counted - retired.conditional : 0];
  }
  own_branches_ = std::max_element(seen.begin(), seen.end(), [](const auto& a, const auto& b) {
                    return a.second < b.second;
                  })->first;
  return Done{};
}

pmu::Retired PerfExperimentHost::run(Shape shape, uint64_t branches, uint64_t* rounds_done) {
  const pmu::Retired round = code_.round(shape);
  const uint64_t rounds = std::max<uint64_t>(branches / round.conditional, 1);
  const uint64_t done = code_.run(shape, rounds, stop_);
  if (rounds_done != nullptr) *rounds_done = done;
  const pmu::Retired end = done < rounds ? code_.stop() : pmu::Retired{};
  return {.conditional = done * round.conditional + end.conditional,
          .taken = done * round.taken + end.taken};
}

Result<Counted> PerfExperimentHost::count(Shape shape, uint64_t branches, Disturbance disturbance) {
  const bool disturbed = disturbance == Disturbance::kInterrupts;
  if (disturbed)
    if (Status s = code_.interrupts(true); !s.ok()) return s.error();
  const uint64_t seen = code_.interrupts_seen();
  const auto before = reading();
  const pmu::Retired retired = run(shape, branches, nullptr);
  const auto after = reading();
  const uint64_t interrupts = code_.interrupts_seen() - seen;
  if (disturbed)
    if (Status s = code_.interrupts(false); !s.ok()) return s.error();
  if (!before.ok()) return before.error();
  if (!after.ok()) return after.error();
  const uint64_t counted = *after - *before;
  return Counted{.retired = retired,
                 .counted = counted - std::min(counted, own_branches_),
                 .interrupts = interrupts};
}

Result<AlarmRun> PerfExperimentHost::alarm(Shape shape, uint64_t period, uint64_t patience) {
  came_ = false;
  stop_ = 0;  // before arming: an alarm with a short period comes before the code begins
  const auto now = reading();
  if (!now.ok()) return now.error();
  if (!counter_->arm(Branches(*now), Branches(*now + period)).ok()) return lost();
  run(shape, period + patience, nullptr);
  stop_ = 0;
  if (!came_) {
    counter_->disarm();
    return AlarmRun{};
  }
  counter_->on_interrupt();
  return AlarmRun{.came_after = came_at_ - *now};
}

void PerfExperimentHost::pause(uint64_t branches) { run(Shape::kTaken, branches, nullptr); }

Status PerfExperimentHost::disturb(Disturbance disturbance) {
  if (Status s = code_.interrupts(disturbance == Disturbance::kInterrupts); !s.ok()) return s;
  if (why_not(Disturbance::kBusySibling)) return Done{};
  return code_.busy_sibling(disturbance == Disturbance::kBusySibling);
}

std::optional<std::string> PerfExperimentHost::why_not(Disturbance disturbance) const {
  return disturbance == Disturbance::kBusySibling ? code_.no_sibling() : std::nullopt;
}

// Each the mean of many; an alarm's way is what is left of arming, running and waiting for it.
CostFigures PerfExperimentHost::costs() {
  constexpr int kReads = 20'000, kArms = 2000, kAlarms = 2000;
  constexpr uint64_t kPeriod = 2000, kFar = 1'000'000'000;  // branches
  CostFigures out;
  auto begin = Clock::now();
  for (int i = 0; i < kReads; ++i) (void)counter_->read();
  out.read_ns = ns_since(begin) / kReads;
  begin = Clock::now();
  for (int i = 0; i < kArms; ++i) {
    const auto now = counter_->read();
    if (!now.ok() || !counter_->arm(*now, *now + kFar).ok()) return out;
    counter_->disarm();
  }
  out.arm_ns = ns_since(begin) / kArms;
  begin = Clock::now();
  for (int i = 0; i < kAlarms; ++i) run(Shape::kTaken, kPeriod, nullptr);
  const double code_ns = ns_since(begin) / kAlarms;
  begin = Clock::now();
  for (int i = 0; i < kAlarms; ++i)
    if (!alarm(Shape::kTaken, kPeriod, kPeriod).ok()) return out;
  out.alarm_ns = std::max(ns_since(begin) / kAlarms - code_ns - *out.arm_ns, 0.0);
  out.step_ns = code_.step_ns();
  out.break_ns = code_.break_ns();
  return out;
}

}  // namespace us::calib
