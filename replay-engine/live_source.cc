#include "replay-engine/live_source.h"

#include <algorithm>

namespace us::replay {
namespace {

using std::chrono::duration_cast;
using std::chrono::nanoseconds;

constexpr uint64_t kTicksPerMs = hv::kTscHz / 1000;
// One tick is one nanosecond; the arithmetic below relies on it.
static_assert(hv::kTscHz == 1'000'000'000);

// How long the guest runs before the host's clock is looked at again.
constexpr uint64_t kLookTicks = kTicksPerMs / 2;
constexpr uint64_t kLookBranchesMin = 512;
// Input that arrives soon after an anchor does not need one of its own.
constexpr uint64_t kFreshTicks = kTicksPerMs / 10;
constexpr auto kWatchdogPeriod = std::chrono::milliseconds(10);

uint64_t ticks(nanoseconds d) { return static_cast<uint64_t>(std::max<int64_t>(d.count(), 0)); }

}  // namespace

LiveSource::LiveSource(hv::Machine& machine, hv::WorldEvents& events, const LiveOptions& options)
    : events_(events), options_(options), machine_(machine) {
  opened_ = Clock::now();
  start_ = opened_ - nanoseconds(static_cast<int64_t>(machine.now().value));
  watchdog_ = std::thread([this] { watch(); });
}

LiveSource::~LiveSource() {
  quit_ = true;
  watchdog_.join();
}

void LiveSource::watch() {
  while (!quit_) {
    std::this_thread::sleep_for(kWatchdogPeriod);
    if (!idle_) machine_.kick();
  }
}

void LiveSource::request_stop() {
  stop_ = true;
  machine_.kick();
  events_.wake();
}

GuestTsc LiveSource::host_tsc() const {
  return GuestTsc(ticks(duration_cast<nanoseconds>(Clock::now() - start_)));
}

LiveSource::Clock::time_point LiveSource::when(GuestTsc tsc) const {
  return start_ + nanoseconds(static_cast<int64_t>(tsc.value));
}

Next LiveSource::next(hv::Machine& machine) {
  if (check_due_) {
    check_due_ = false;
    const bool memory =
        options_.epochs_per_memory_check != 0 && epoch_ % options_.epochs_per_memory_check == 0;
    return EpochCheck{
        .point = machine.point(), .epoch = epoch_, .with_memory = memory, .expected = {}};
  }
  if (pending_) {
    StampedInput next{machine.point(), std::move(*pending_)};
    pending_.reset();
    return next;
  }
  for (;;) {
    if (stop_) return EndOfInputs{EndKind::kStoppedByUser, "stopped on request"};
    if (options_.time_limit && Clock::now() - opened_ >= *options_.time_limit)
      return EndOfInputs{EndKind::kTimeLimit, "the time limit was reached"};
    if (auto event = events_.pop()) {
      // What arrives finds the clock at the time it arrived.
      if (host_tsc().value < last_anchor_tsc_ + kFreshTicks && anchored_)
        return StampedInput{machine.point(), std::move(*event)};
      pending_ = std::move(*event);
      return make_anchor(machine);
    }
    if (!anchored_ || anchor_due(machine) || record_wanted(false)) return make_anchor(machine);

    const hv::MachineStop stop =
        machine.run({.alarm = machine.point().branches + branches_until_look(machine)});
    if (const auto end = ended(machine, stop)) return *end;
    if (stop != hv::MachineStop::kIdle) continue;
    if (record_wanted(true)) return make_anchor(machine);
    wait_for_something(machine);
  }
}

bool LiveSource::anchor_due(hv::Machine& machine) {
  const GuestTsc now = host_tsc();
  if (const auto deadline = machine.next_deadline(); deadline && *deadline <= now) return true;
  // An idle guest needs none: its clock stands still until something wakes it.
  if (machine.vcpu().halted()) return false;
  return now.value >= last_anchor_tsc_ + ticks(options_.anchor_interval);
}

StampedInput LiveSource::make_anchor(hv::Machine& machine) {
  const GuestTsc now = std::max(host_tsc(), machine.now());
  const Branches branches = machine.point().branches;
  const uint64_t ran = branches.value - last_anchor_branches_;
  const uint64_t passed = now.value - std::min(now.value, last_anchor_tsc_);
  // A stretch mostly spent idle says nothing of the guest's speed.
  if (anchored_ && ran > 10'000 && passed > 0 && passed < 10 * kTicksPerMs)
    branches_per_tick_ +=
        (static_cast<double>(ran) / static_cast<double>(passed) - branches_per_tick_) / 4;
  branches_per_tick_ = std::clamp(branches_per_tick_, 0.0005, 4.0);
  last_anchor_tsc_ = now.value;
  last_anchor_branches_ = branches.value;
  anchored_ = true;
  count_epochs(now);
  // A little slow on purpose: the next anchor then moves the clock forward, never holds it back.
  const auto rate = static_cast<uint64_t>(0.97 * 4294967296.0 / branches_per_tick_);
  // Few significant bits: anchors in the log then say "same rate" most of the time.
  const uint64_t coarse = rate & (~uint64_t{0} << std::max(0, 64 - __builtin_clzll(rate | 1) - 4));
  return {machine.point(), hv::AnchorInput{{.branches = branches,
                                            .tsc = now,
                                            .ticks_per_branch_q32 = coarse,
                                            .tsc_ceiling = now + ticks(options_.clock_lead_max)}}};
}

// An epoch ends with the first anchor past its length; a long sleep is one epoch.
void LiveSource::count_epochs(GuestTsc now) {
  const uint64_t length = ticks(options_.epoch_length);
  if (length == 0 || now.value / length == last_epoch_slot_) return;
  last_epoch_slot_ = now.value / length;
  ++epoch_;
  check_due_ = true;
}

uint64_t LiveSource::branches_until_look(hv::Machine& machine) {
  uint64_t ticks_left = kLookTicks;
  if (const auto deadline = machine.next_deadline()) {
    const uint64_t now = host_tsc().value;
    ticks_left = std::min(ticks_left, deadline->value > now ? deadline->value - now : 0);
  }
  const double branches = branches_per_tick_ * static_cast<double>(ticks_left);
  return std::max(static_cast<uint64_t>(branches), kLookBranchesMin);
}

void LiveSource::wait_for_something(hv::Machine& machine) {
  Clock::time_point until = Clock::now() + std::chrono::hours(1);
  if (const auto deadline = machine.next_deadline()) until = std::min(until, when(*deadline));
  if (options_.time_limit) until = std::min(until, opened_ + *options_.time_limit);
  idle_ = true;
  if (!stop_) events_.wait_until(until);
  idle_ = false;
}

std::optional<EndOfInputs> LiveSource::ended(hv::Machine& machine, hv::MachineStop stop) const {
  if (stop == hv::MachineStop::kFailed) return host_failed(machine.vcpu().failure());
  if (stop == hv::MachineStop::kShutdown) return EndOfInputs{EndKind::kGuestFailed, "triple fault"};
  if (stop == hv::MachineStop::kIdle && machine.halted_for_good())
    return EndOfInputs{EndKind::kGuestFailed, "halted with interrupts off"};
  if (stop != hv::MachineStop::kPower) return std::nullopt;
  const hv::PowerStatus power = machine.power();
  switch (power.state) {
    case hv::PowerState::kPoweredOff: return EndOfInputs{EndKind::kGuestPoweredOff, "power-off"};
    case hv::PowerState::kResetRequested: return EndOfInputs{EndKind::kGuestReset, "reset"};
    case hv::PowerState::kDebugExit:
      // A test kernel writes 0 for success, which QEMU's device turns into 1.
      if (power.debug_code == 1) return EndOfInputs{EndKind::kDebugExit, "code 1"};
      return EndOfInputs{EndKind::kGuestFailed,
                         fmt::format("debug exit with code {}", power.debug_code)};
    case hv::PowerState::kRunning: break;
  }
  US_CHECK(false, "the machine stopped for a power change that did not happen");
}

}  // namespace us::replay
