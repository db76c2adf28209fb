#include "hv/kvm/exit_storms.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/check.h"
#include "hv/kvm/test_guest.h"

namespace us::hv::kvm {
namespace {

constexpr ExitKind kAll[] = {ExitKind::kSignals, ExitKind::kAlarms, ExitKind::kBreakpoints,
                             ExitKind::kSteps, ExitKind::kAccesses};
constexpr uint64_t kTurns = 0xffff'ffff;  // ECX at the start: more than any storm lasts
constexpr uint64_t kAlarmEvery = 200;     // branches
constexpr std::chrono::microseconds kBetweenKicks{20};
constexpr uint8_t kEcho = 0x80;

// MOV ECX; start: OUT (accesses only); DEC ECX; JNZ start; HLT
struct StormCode {
  Bytes bytes;
  uint64_t start = 0, dec = 0, jump = 0;
};

StormCode code_for(ExitKind kind) {
  StormCode c;
  put_load_counter(c.bytes, kTurns);
  const size_t start = c.bytes.size();
  if (kind == ExitKind::kAccesses) put(c.bytes, {0xe6, kEcho});
  const size_t dec = c.bytes.size();
  put_loop_end(c.bytes, start);
  put(c.bytes, {0xf4});
  c.start = kTestCode + start;
  c.dec = kTestCode + dec;
  c.jump = c.dec + 2;
  return c;
}

// How often JNZ was executed, by what DEC has left in ECX.
Result<uint64_t> branches_by_counter(const KvmVcpu& vcpu, const StormCode& code) {
  const ExecutionPoint here = vcpu.point();
  if (here.rip == kTestCode) return uint64_t{0};
  if (here.rip == code.start || here.rip == code.dec) return kTurns - here.rcx;
  if (here.rip == code.jump) return kTurns - here.rcx - 1;
  return went_astray(vcpu, StopReason::kStepped);
}

class StormRun {
 public:
  StormRun(KvmVcpu& vcpu, const StormCode& code, ExitKind kind)
      : vcpu_(vcpu), code_(code), kind_(kind) {}

  // Leaves the guest once, or more often. False: it stopped for another reason.
  bool once() {
    switch (kind_) {
      case ExitKind::kSignals:
      case ExitKind::kAccesses: return is(vcpu_.run({}), StopReason::kKicked);
      case ExitKind::kAlarms: return alarm();
      case ExitKind::kBreakpoints:
        return is(vcpu_.run({.has_breakpoint = true, .breakpoint = code_.start}),
                  StopReason::kBreakpoint);
      case ExitKind::kSteps: return is(vcpu_.step(), StopReason::kStepped);
    }
    US_CHECK(false, "no such kind of exit");
  }
  StopReason last() const { return last_; }
  std::vector<uint64_t>& late() { return late_; }

 private:
  bool is(StopReason seen, StopReason wanted) {
    last_ = seen;
    return seen == wanted || seen == StopReason::kKicked;
  }
  bool alarm() {
    const Branches aim = vcpu_.branches() + kAlarmEvery;
    if (!is(vcpu_.run({.alarm = aim}), StopReason::kAlarm)) return false;
    const Branches here = vcpu_.branches();
    late_.push_back(here > aim ? (here - aim).value : 0);
    return true;
  }

  KvmVcpu& vcpu_;
  const StormCode& code_;
  ExitKind kind_;
  StopReason last_ = StopReason::kKicked;
  std::vector<uint64_t> late_;
};

// What has been left so far: entries, but for a run that steps or serves many accesses.
uint64_t exits_of(const KvmVcpu& vcpu, ExitKind kind) {
  const KvmVcpu::Statistics& s = vcpu.statistics();
  return kind == ExitKind::kAccesses ? s.accesses : s.runs;
}

}  // namespace

std::span<const ExitKind> all_exit_kinds() { return kAll; }

const char* name_of(ExitKind kind) {
  switch (kind) {
    case ExitKind::kSignals: return "signals";
    case ExitKind::kAlarms: return "alarms";
    case ExitKind::kBreakpoints: return "breakpoints";
    case ExitKind::kSteps: return "steps";
    case ExitKind::kAccesses: return "accesses";
  }
  return "";
}

Result<StormResult> run_storm(KvmHost& host, const KvmOptions& options, ExitKind kind,
                              uint64_t exits) {
  US_CHECK(exits <= kExitsMax, "{} exits", exits);
  const StormCode code = code_for(kind);
  TestGuest guest;
  if (Status s = make_test_guest(guest, host, options, code.bytes); !s.ok()) return s.error();
  KvmVcpu& vcpu = *guest.vcpu;
  StormRun run(vcpu, code, kind);
  const auto started = std::chrono::steady_clock::now();
  {
    // Without one the guest would serve accesses for ever.
    std::optional<Storm> kicks;
    if (kind == ExitKind::kSignals || kind == ExitKind::kAccesses)
      kicks.emplace(vcpu, kBetweenKicks);
    while (exits_of(vcpu, kind) < exits) {
      if (run.once()) continue;
      if (vcpu.failure()) return *vcpu.failure();
      return went_astray(vcpu, run.last());
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  const auto expected = branches_by_counter(vcpu, code);
  if (!expected.ok()) return expected.error();
  StormResult result{.kind = kind,
                     .exits = exits_of(vcpu, kind),
                     .expected = *expected,
                     .counted = vcpu.branches().value,
                     .seconds = took.count()};
  if (std::vector<uint64_t>& late = run.late(); !late.empty()) {
    std::sort(late.begin(), late.end());
    result.late_p99 = late[late.size() * 99 / 100];
    result.late_max = late.back();
  }
  return result;
}

}  // namespace us::hv::kvm
