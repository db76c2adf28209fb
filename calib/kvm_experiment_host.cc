#include "calib/kvm_experiment_host.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "calib/code_runner.h"
#include "pmu/host_identity.h"

namespace us::calib {
namespace {

using Clock = std::chrono::steady_clock;
using hv::StopReason;

// Repeated string instructions are a step an element: by steps they would take all the time.
constexpr Shape kShapes[] = {Shape::kTaken, Shape::kNotTaken,    Shape::kMixed,
                             Shape::kCalls, Shape::kCacheMisses, Shape::kStrings};
constexpr size_t kShapesByStep = std::size(kShapes) - 1;

// The guest's memory, apart from what test_guest.h puts there: where calls return to, the byte that
// would stop the code, each shape's code, and a chain of pointers beyond every cache.
constexpr uint64_t kReturn = hv::kvm::kTestCode, kStopByte = 0x9000;
constexpr uint64_t kShapeCode = 0x10000, kShapeBytes = 0x2000;
constexpr uint64_t kData = 0x80000;
constexpr uint64_t kChain = 2u << 20, kChainBytes = 64u << 20;
constexpr uint64_t kMemoryBytes = kChain + kChainBytes;

constexpr std::chrono::microseconds kBetweenKicks{50};
constexpr uint64_t kAlarmEvery = 2000;  // branches, in a storm of exits

uint64_t code_of(Shape shape) { return kShapeCode + static_cast<uint64_t>(shape) * kShapeBytes; }

double ns_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

// One cycle through every cache line, in an order that no prefetcher foresees: a full-period linear
// congruential generator steps from line to line (Hull and Dobell 1962).
Bytes chain() {
  constexpr uint64_t kLine = 64, kLines = kChainBytes / kLine;
  Bytes out(kChainBytes);
  uint64_t line = 0;
  for (uint64_t i = 0; i < kLines; ++i) {
    const uint64_t next = (line * 1664525 + 1013904223) % kLines;
    const uint64_t address = kChain + next * kLine;
    std::memcpy(out.data() + line * kLine, &address, sizeof address);
    line = next;
  }
  return out;
}

}  // namespace

void WatchedCounter::watch(uint64_t period) {
  US_CHECK(period > 0, "an alarm after 0 branches");
  period_ = period;
  armed_at_.reset();
  came_after_.reset();
}

std::optional<uint64_t> WatchedCounter::end_watch() {
  counter_->disarm();
  period_ = 0;
  return came_after_;
}

// A stop of another kind may have it armed anew: it goes on as it is.
Result<Done, pmu::CounterError> WatchedCounter::arm(Branches now, Branches target) {
  if (period_ == 0) return counter_->arm(now, target);
  if (armed_at_) return Done{};
  armed_at_ = now;
  return counter_->arm(now, now + period_);
}

void WatchedCounter::on_interrupt() {
  const uint64_t fired = counter_->health().alarms_fired;
  counter_->on_interrupt();
  if (period_ == 0 || !armed_at_ || counter_->health().alarms_fired == fired) return;
  if (const auto now = counter_->read(); now.ok()) came_after_ = (*now - *armed_at_).value;
  bus_.attention = true;
}

Result<std::unique_ptr<KvmExperimentHost>> KvmExperimentHost::open(
    const hv::kvm::Host& host, const KvmExperimentOptions& options) {
  std::unique_ptr<KvmExperimentHost> made(new KvmExperimentHost(host, options));
  if (Status s = made->start(); !s.ok()) return s.error();
  return made;
}

Status KvmExperimentHost::start() {
  if (!options_.by_steps) {
    const auto row = pmu::usable_event(host_.system.cpu());
    if (!row.ok()) return row.error();
    row_ = *row;
  }
  if (Status s = make_guest(); !s.ok()) return s.error();
  // The counter is opened by the thread that first runs the guest: now.
  const auto tried = count(Shape::kTaken, 1, Disturbance::kNone);
  if (!tried.ok()) return tried.error();
  return Done{};
}

Status KvmExperimentHost::make_guest() {
  hv::kvm::KvmOptions options{.cpu = options_.cpu};
  if (!options_.by_steps)
    options.counter = [this](int signal) -> Result<std::unique_ptr<pmu::Counter>> {
      auto counter = pmu::PerfCounter::open(
          host_.perf, *row_,
          {.thread = host_.kvm.this_thread(), .signal = signal, .period_min = 1});
      if (!counter.ok()) return counter.error();
      auto watched = std::make_unique<WatchedCounter>(std::move(counter).value(), guest_.bus);
      counter_ = watched.get();
      return std::unique_ptr<pmu::Counter>(std::move(watched));
    };
  // OUT kTestAttentionPort, AL; HLT
  const Bytes end{0xe6, hv::kvm::kTestAttentionPort, 0xf4};
  if (Status s = make_test_guest(guest_, host_.kvm, options, end, kMemoryBytes); !s.ok()) return s;
  for (const Shape shape : kShapes) {
    const NativeShape native = native_shape(shape);
    US_CHECK(native.bytes <= kShapeBytes, "{} bytes of {}", native.bytes, name_of(shape));
    US_CHECK(guest_.memory->write(GuestPhys(code_of(shape)), {native.code, native.bytes}));
  }
  US_CHECK(guest_.memory->write(GuestPhys(kChain), chain()));
  return Done{};
}

std::string_view KvmExperimentHost::event() const {
  return row_ == nullptr ? pmu::kStepsEvent : std::string_view(row_->pfm_event);
}

pmu::HostIdentity KvmExperimentHost::identity() const { return pmu::this_host(); }

std::span<const Shape> KvmExperimentHost::shapes() const {
  return {kShapes, options_.by_steps ? kShapesByStep : std::size(kShapes)};
}

// As a C function is called: arguments in RDI, RSI and RDX, the address to return to on the stack.
void KvmExperimentHost::call(Shape shape, uint64_t rounds) {
  const uint64_t stack = hv::kvm::kTestStack - 8;
  ByteWriter out;
  out.put(kReturn);
  US_CHECK(guest_.memory->write(GuestPhys(stack), out.bytes()));
  hv::Registers r = guest_.vcpu->registers();
  r.rip = code_of(shape);
  r.rflags = 2;
  r.gpr[hv::kRsp] = stack;
  r.gpr[hv::kRdi] = rounds;
  r.gpr[hv::kRsi] = kStopByte;
  r.gpr[hv::kRdx] = shape == Shape::kCacheMisses ? kChain : kData;
  guest_.vcpu->set_registers(r);
}

StopReason KvmExperimentHost::run_on(const hv::RunRequest& request) {
  StopReason reason;
  do reason = guest_.vcpu->run(request);
  while (reason == StopReason::kKicked);
  return reason;
}

bool KvmExperimentHost::returned(StopReason reason, uint64_t rounds) const {
  if (reason != StopReason::kAttention || guest_.vcpu->failure()) return false;
  const hv::Registers r = guest_.vcpu->registers();
  return r.rip == kReturn + 2 && r.gpr[hv::kRax] == rounds;
}

UserError KvmExperimentHost::failed(StopReason reason) const {
  if (guest_.vcpu->failure()) return *guest_.vcpu->failure();
  return hv::kvm::went_astray(*guest_.vcpu, reason);
}

void KvmExperimentHost::storm(bool on) {
  if (on == storm_.has_value()) return;
  if (on)
    storm_.emplace(*guest_.vcpu, kBetweenKicks);
  else
    storm_.reset();
}

Result<Counted> KvmExperimentHost::count(Shape shape, uint64_t branches, Disturbance disturbance) {
  const bool stormy = disturbance == Disturbance::kInterrupts;
  storm(stormy);
  const pmu::Retired round = native_shape(shape).round;
  const uint64_t rounds = std::max<uint64_t>(branches / round.conditional, 1);
  hv::kvm::KvmVcpu& vcpu = *guest_.vcpu;
  call(shape, rounds);
  const Branches before = vcpu.branches();
  uint64_t interrupts = 0;
  StopReason reason = StopReason::kKicked;
  for (;; ++interrupts) {
    hv::RunRequest request;
    if (stormy) request.alarm = vcpu.branches() + kAlarmEvery;
    reason = vcpu.run(request);
    if (reason != StopReason::kKicked && reason != StopReason::kAlarm) break;
  }
  const Branches after = vcpu.branches();  // a counter that is lost says so here
  if (!returned(reason, rounds)) return failed(reason);
  return Counted{
      .retired = {.conditional = rounds * round.conditional, .taken = rounds * round.taken},
      .counted = (after - before).value,
      .interrupts = interrupts};
}

Result<AlarmRun> KvmExperimentHost::alarm(Shape shape, uint64_t period, uint64_t patience) {
  storm(disturbed_);
  if (counter_ == nullptr) return alarm_by_steps(shape, period);
  const uint64_t rounds = (period + patience) / native_shape(shape).round.conditional + 1;
  call(shape, rounds);
  const Branches limit = guest_.vcpu->branches() + (period + patience);
  counter_->watch(period);
  const StopReason reason = run_on({.alarm = limit});
  const auto came_after = counter_->end_watch();
  (void)guest_.vcpu->branches();  // as in count()
  if (guest_.vcpu->failure()) return failed(reason);
  if (came_after) return AlarmRun{.came_after = came_after};
  if (reason != StopReason::kAlarm && !returned(reason, rounds)) return failed(reason);
  return AlarmRun{};
}

// Who steps is never interrupted, and stops at the very branch.
Result<AlarmRun> KvmExperimentHost::alarm_by_steps(Shape shape, uint64_t period) {
  call(shape, ~uint64_t{0});
  const Branches before = guest_.vcpu->branches();
  const StopReason reason = run_on({.alarm = before + period});
  if (reason != StopReason::kAlarm) return failed(reason);
  return AlarmRun{.came_after = (guest_.vcpu->branches() - before).value};
}

// By steps nothing is throttled, and a pause would take seconds.
void KvmExperimentHost::pause(uint64_t branches) {
  if (!options_.by_steps) (void)count(Shape::kTaken, branches, Disturbance::kNone);
}

Status KvmExperimentHost::disturb(Disturbance disturbance) {
  disturbed_ = disturbance == Disturbance::kInterrupts;
  storm(disturbed_);
  return Done{};
}

std::optional<std::string> KvmExperimentHost::why_not(Disturbance disturbance) const {
  if (disturbance != Disturbance::kBusySibling) return std::nullopt;
  return std::string("guests are not yet measured beside a busy hardware thread");
}

CostFigures KvmExperimentHost::costs() {
  storm(false);
  CostFigures out;
  out.step_ns = step_ns();
  if (options_.by_steps) return out;
  measure_counter(out);
  out.break_ns = break_ns();
  return out;
}

// Each the mean of many; an alarm's way is what is left of arming, running and waiting for it.
void KvmExperimentHost::measure_counter(CostFigures& out) {
  constexpr int kReads = 20'000, kArms = 2000, kAlarms = 2000;
  constexpr uint64_t kPeriod = 2000, kFar = 1'000'000'000;  // branches
  auto begin = Clock::now();
  for (int i = 0; i < kReads; ++i) (void)counter_->read();
  out.read_ns = ns_since(begin) / kReads;
  begin = Clock::now();
  for (int i = 0; i < kArms; ++i) {
    const auto now = counter_->read();
    if (!now.ok() || !counter_->arm(*now, *now + kFar).ok()) return;
    counter_->disarm();
  }
  out.arm_ns = ns_since(begin) / kArms;
  // As long as kAlarms pieces of code, but entered and left once.
  begin = Clock::now();
  if (!count(Shape::kTaken, kAlarms * kPeriod, Disturbance::kNone).ok()) return;
  const double code_ns = ns_since(begin) / kAlarms;
  begin = Clock::now();
  for (int i = 0; i < kAlarms; ++i)
    if (!alarm(Shape::kTaken, kPeriod, kPeriod).ok()) return;
  out.alarm_ns = std::max(ns_since(begin) / kAlarms - code_ns - *out.arm_ns, 0.0);
}

std::optional<double> KvmExperimentHost::step_ns() {
  constexpr int kSteps = 5000;
  call(Shape::kMixed, ~uint64_t{0});
  const auto begin = Clock::now();
  for (int i = 0; i < kSteps; ++i)
    if (guest_.vcpu->step() != StopReason::kStepped) return std::nullopt;
  return ns_since(begin) / kSteps;
}

// At an instruction within the code's rounds, which a few steps lead to.
std::optional<double> KvmExperimentHost::break_ns() {
  constexpr int kBreaks = 2000, kStepsIn = 12;
  call(Shape::kMixed, ~uint64_t{0});
  for (int i = 0; i < kStepsIn; ++i)
    if (guest_.vcpu->step() != StopReason::kStepped) return std::nullopt;
  const uint64_t target = guest_.vcpu->point().rip;
  const auto begin = Clock::now();
  for (int i = 0; i < kBreaks; ++i)
    if (run_on({.has_breakpoint = true, .breakpoint = target}) != StopReason::kBreakpoint)
      return std::nullopt;
  return ns_since(begin) / kBreaks;
}

}  // namespace us::calib
