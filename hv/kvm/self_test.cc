#include "hv/kvm/self_test.h"

#include <algorithm>
#include <chrono>

#include "hv/kvm/test_guest.h"
#include "ipt/normal_form.h"

namespace us::hv::kvm {
namespace {

constexpr uint8_t kEcho = 0x80;  // a port that nobody minds
constexpr uint64_t kNotTakenRun = 64;
constexpr std::chrono::microseconds kBetweenKicks{100};

// The guest's code, and how many conditional branches it retires up to its HLT.
struct Program {
  Bytes code;
  uint64_t branches = 0;
};

Program taken(uint64_t branches) {
  Program p;
  put_load_counter(p.code, branches);
  put_loop_end(p.code, p.code.size());
  p.branches = branches;
  put(p.code, {0xf4});
  return p;
}

Program not_taken(uint64_t branches) {
  const uint64_t rounds = branches / (kNotTakenRun + 1) + 1;
  Program p;
  put_load_counter(p.code, rounds);
  const size_t start = p.code.size();
  put(p.code, {0x31, 0xc0});                                              // XOR EAX, EAX: ZF
  for (uint64_t i = 0; i < kNotTakenRun; ++i) put(p.code, {0x75, 0x00});  // JNZ, to the next
  put_loop_end(p.code, start);
  p.branches = rounds * (kNotTakenRun + 1);
  put(p.code, {0xf4});
  return p;
}

Program mixed(uint64_t branches) {
  constexpr uint64_t kEach = 4;
  const uint64_t rounds = branches / kEach + 1;
  Program p;
  put_load_counter(p.code, rounds);
  const size_t start = p.code.size();
  put(p.code, {0xf6, 0xc1, 0x01});        // TEST CL, 1
  put(p.code, {0x75, 0x00});              // JNZ, to the next: every other time
  put(p.code, {0xe6, kEcho});             // OUT
  put(p.code, {0xf6, 0xc1, 0x02});        // TEST CL, 2
  put(p.code, {0x74, 0x02, 0x0f, 0x0b});  // JZ over UD2
  put(p.code, {0xe3, 0x00});              // JRCXZ, never taken
  put_loop_end(p.code, start);
  p.branches = rounds * kEach;
  put(p.code, {0xf4});
  return p;
}

Program program_for(Loop loop, uint64_t branches) {
  switch (loop) {
    case Loop::kTaken: return taken(branches);
    case Loop::kNotTaken: return not_taken(branches);
    case Loop::kMixed: return mixed(branches);
  }
  US_CHECK(false, "no such loop");
}

// With a counter that counts nothing the guest runs freely, on hosts without a real one too.
KvmOptions uncounted() {
  KvmOptions options;
  options.counter = [](int) -> Result<std::unique_ptr<pmu::Counter>> {
    return std::unique_ptr<pmu::Counter>(std::make_unique<StepCounter>());
  };
  return options;
}

class CountingSink final : public ipt::TraceSink {
 public:
  bool accept(ByteSpan bytes) override {
    form.feed(bytes);
    return true;
  }
  void lost(uint32_t flags) override { form.note_aux_flags(flags); }
  void stands(uint64_t ip) override { form.note_position(ip); }
  void delivered(uint64_t from, uint64_t to) override { form.note_delivery(from, to); }
  ipt::NormalForm form;
};

}  // namespace

const char* name_of(Loop loop) {
  switch (loop) {
    case Loop::kTaken: return "taken";
    case Loop::kNotTaken: return "not taken";
    case Loop::kMixed: return "mixed";
  }
  return "";
}

Result<LoopResult> run_loop(KvmHost& host, const KvmOptions& options, Loop loop, uint64_t branches,
                            bool storm) {
  const Program program = program_for(loop, branches);
  TestGuest guest;
  if (Status s = make_test_guest(guest, host, options, program.code); !s.ok()) return s.error();
  KvmVcpu& vcpu = *guest.vcpu;
  StopReason reason = StopReason::kKicked;
  {
    std::optional<Storm> kicks;
    if (storm) kicks.emplace(vcpu, kBetweenKicks);
    // An alarm now and then, so that the counter interrupts too.
    const uint64_t alarm_every = std::max<uint64_t>(branches / 20, 100);
    while (reason == StopReason::kKicked || reason == StopReason::kAlarm)
      reason = vcpu.run({.alarm = vcpu.branches() + alarm_every});
  }
  if (reason == StopReason::kFailed) return *vcpu.failure();
  const uint64_t end = kTestCode + program.code.size();
  if (reason != StopReason::kHalted || vcpu.point().rip != end) return went_astray(vcpu, reason);
  return LoopResult{.expected = program.branches,
                    .counted = vcpu.branches().value,
                    .exits = vcpu.statistics().runs};
}

Result<TraceResult> trace_loop(KvmHost& host, ipt::TraceHost& trace, uint64_t branches) {
  KvmOptions options = uncounted();
  options.trace = &trace;
  if (const auto pmu = ipt::find_trace_pmu(trace); !pmu.ok()) return pmu.error();
  const Program program = program_for(Loop::kMixed, branches);
  TestGuest guest;
  if (Status s = make_test_guest(guest, host, options, program.code); !s.ok()) return s.error();
  KvmVcpu& vcpu = *guest.vcpu;
  CountingSink sink;
  const auto setup = vcpu.start_trace({.sink = &sink});
  if (!setup.ok()) return setup.error();
  StopReason reason = StopReason::kKicked;
  while (reason == StopReason::kKicked) reason = vcpu.run({});
  vcpu.stop_trace();
  if (reason == StopReason::kFailed) return *vcpu.failure();
  if (reason != StopReason::kHalted) return went_astray(vcpu, reason);
  const ipt::EpochDigest digest = sink.form.end_epoch();
  return TraceResult{.expected = program.branches,
                     .traced = digest.branches(),
                     .loss = std::string(digest.loss.reason())};
}

Result<BreakpointResult> try_breakpoint(KvmHost& host) {
  const KvmOptions options = uncounted();
  Bytes code;
  put_load_counter(code, 3);
  const size_t start = code.size();
  put(code, {0x90, 0xff, 0xc3});  // NOP; INC EBX, where the breakpoint is
  put_loop_end(code, start);
  put(code, {0xf4});
  TestGuest guest;
  if (Status s = make_test_guest(guest, host, options, code); !s.ok()) return s.error();
  KvmVcpu& vcpu = *guest.vcpu;
  const uint64_t target = kTestCode + start + 1;
  const RunRequest request{.has_breakpoint = true, .breakpoint = target};
  const auto stops_with = [&](uint64_t count) {
    const StopReason reason = vcpu.run(request);
    return reason == StopReason::kBreakpoint && vcpu.point().rip == target &&
           vcpu.registers().gpr[kRbx] == count;
  };
  BreakpointResult result;
  result.stopped_before = stops_with(0);
  result.went_on = stops_with(1);
  if (vcpu.failure()) return *vcpu.failure();
  return result;
}

}  // namespace us::hv::kvm
