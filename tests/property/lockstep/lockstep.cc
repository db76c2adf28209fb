// Lockstep: the interpreter and the translator run the same random program; both are stopped at the
// same random places, interrupted there, and must be alike in every register, flag, count and byte.
// Alarms and steps name such places. Kicks stop the translated guest wherever it is, at a block
// drawn by lot or when another thread comes; the interpreted one walks to the same point. Every
// third pair is traced, and the packets are the same too.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <string>
#include <thread>

#include "base/check.h"
#include "guest.h"
#include "hv/core/executor.h"
#include "hv/cpu/translate/translator.h"
#include "ipt/packet_writer.h"
#include "pmu/random.h"
#include "program.h"

namespace us::lockstep {
namespace {

using namespace hv;

constexpr uint64_t kResume = 0x2e'0000, kCodeEnd = 0x1f'0000, kFaultsLeft = kTicksAt + 8,
                   kSystemCall = kResume + 0x40;

struct Counts {
  uint64_t programs = 0, stops = 0, instructions = 0, interrupts = 0, units = 0, withdrawn = 0;
  uint64_t kicks = 0, thread_kicks = 0, traces = 0, trace_bytes = 0;
};

// Another thread that kicks a vCPU a little after it was asked to.
class Kicker {
 public:
  explicit Kicker(SoftVcpu& vcpu) : vcpu_(vcpu), thread_([this] { work(); }) {}
  ~Kicker() {
    wait_ = kLeave;
    thread_.join();
  }
  Kicker(const Kicker&) = delete;
  Kicker& operator=(const Kicker&) = delete;

  void kick_after(uint32_t turns) { wait_ = turns; }
  // Until the kick that was asked for has come.
  void finish() {
    while (wait_ != 0) std::this_thread::yield();
  }

 private:
  static constexpr uint32_t kLeave = ~0u;
  void work() {
    for (;;) {
      const uint32_t turns = wait_;
      if (turns == kLeave) return;
      if (turns == 0) {
        std::this_thread::yield();
        continue;
      }
      for (uint32_t i = 0; i < turns; ++i) asm volatile("pause");
      vcpu_.kick();
      wait_ = 0;
    }
  }

  SoftVcpu& vcpu_;
  std::atomic<uint32_t> wait_{0};
  std::thread thread_;
};

void prepare(test::Guest& guest, const std::vector<uint8_t>& program, uint64_t seed) {
  guest.enter_long_mode();
  guest.cpu().cr4 |= cr4::kOsxmmexcpt;
  // Faults go on at R14, a thousand times: DEC DWORD [kFaultsLeft]; JZ to HLT; ADD RSP, 8 where
  // there is an error code; MOV [RSP], R14; IRETQ.
  guest.put(kResume, {0x48, 0x83, 0xc4, 0x08, 0xff, 0x0c, 0x25, 0x08, 0x00, 0x2f,
                      0x00, 0x74, 0x06, 0x4c, 0x89, 0x34, 0x24, 0x48, 0xcf, 0xf4});
  guest.poke32(kFaultsLeft, 1000);
  for (const unsigned vector : {0u, 6u, 13u, 14u}) {
    const uint64_t to = kResume + (vector >= 13 ? 0 : 4);
    guest.put(test::handler_of(vector), {0xe9});
    guest.poke32(test::handler_of(vector) + 1,
                 static_cast<uint32_t>(to - test::handler_of(vector) - 5));
  }
  guest.put(test::handler_of(kTickVector),  // INC QWORD [kTicksAt]; IRETQ
            {0x48, 0xff, 0x04, 0x25, kTicksAt & 0xff, (kTicksAt >> 8) & 0xff,
             (kTicksAt >> 16) & 0xff, 0, 0x48, 0xcf});
  guest.put(kSystemCall, {0x48, 0xff, 0x04, 0x25, kTicksAt & 0xff, (kTicksAt >> 8) & 0xff,
                          (kTicksAt >> 16) & 0xff, 0,      // INC QWORD [kTicksAt]
                          0x41, 0x53, 0x9d, 0xff, 0xe1});  // PUSH R11; POPFQ; JMP RCX
  guest.cpu().msr.lstar = kSystemCall;
  guest.cpu().msr.star = uint64_t{test::kCode64} << 32;
  guest.cpu().msr.sfmask = flag::kIf;
  // A fault where R14 is old may derail the program; there it halts.
  const auto halts = [&](uint64_t from, uint64_t to) {
    std::memset(guest.memory->host(GuestPhys(from)), 0xf4, to - from);
  };
  halts(0, 0x1000);
  halts(test::kUserStackTop, kProgramAt);
  halts(kProgramAt, kCodeEnd);
  halts(kDataAt + 2 * kDataBytes, 16 << 20);
  guest.poke(kProgramAt, program.data(), program.size());
  pmu::Random random(seed);
  for (uint64_t i = 0; i < kDataBytes; i += 8) guest.poke64(kDataAt + i, random.next());
  for (unsigned i = 0; i < 16; ++i)
    if (i != kRsp) guest.cpu().regs[i] = random.next();
  for (Xmm& x : guest.cpu().xmm) x.q[0] = random.next(), x.q[1] = random.next();
  guest.cpu().regs[kRbx] = kDataAt;
  guest.cpu().rip = kProgramAt;
  guest.cpu().rflags_other |= flag::kIf;
  guest.vcpu.refresh();
}

std::vector<uint8_t> state_of(const test::Guest& guest) {
  ByteWriter out;
  guest.vcpu.digest_state(out);
  return {out.bytes().begin(), out.bytes().end()};
}

bool same_memory(test::Guest& a, test::Guest& b) {
  const auto same = [&](uint64_t at, uint64_t size) {
    return std::memcmp(a.memory->host(GuestPhys(at)), b.memory->host(GuestPhys(at)), size) == 0;
  };
  return same(kDataAt - 0x1000, kDataBytes + 0x2000) && same(kProgramAt, 1 << 16) &&
         same(test::kStackTop - 0x2000, 0x2000) && same(kTicksAt, 16) &&
         same(test::kPml4At, 0x4000);
}

// The interpreted guest goes where the translated one stopped: false if it does not get there.
bool catch_up(test::Guest& a, test::Guest& b, StopReason reason) {
  if (reason == StopReason::kHalted || reason == StopReason::kShutdown)
    return a.vcpu.run({}) == reason;
  const ExecutionPoint there = b.vcpu.point();
  if (a.cpu().branches < there.branches.value) a.vcpu.run({.alarm = there.branches});
  constexpr unsigned kMostSteps = 20'000;
  for (unsigned i = 0; i < kMostSteps && a.vcpu.point() != there; ++i) {
    if (a.cpu().instructions > there.instructions.value) return false;
    const StopReason stopped = a.vcpu.step();
    if (stopped == StopReason::kHalted || stopped == StopReason::kShutdown) break;
  }
  return a.vcpu.point() == there;
}

// Both go on to the same place: some branches, some single steps, or as far as a kick lets the
// translated one. `reason`: why it stopped.
bool go_on(test::Guest& a, test::Guest& b, Kicker& kicker, pmu::Random& random, StopReason& reason,
           Counts& counts) {
  const uint64_t far = random.one_in(4) ? 400 : random.one_in(2) ? 3 : 40;
  const Branches alarm(b.cpu().branches + 1 + random.below(far));
  switch (random.below(8)) {
    case 0:
      for (uint64_t n = random.below(20); n > 0; --n) {
        reason = a.vcpu.step();
        if (b.vcpu.step() != reason) return false;
      }
      return true;
    case 1:
    case 2:
    case 3:
      b.vcpu.kick_after(1 + static_cast<uint32_t>(random.below(random.one_in(2) ? 4 : 60)));
      reason = b.vcpu.run({.alarm = alarm});
      b.vcpu.kick_after(0);
      counts.kicks += reason == StopReason::kKicked;
      return catch_up(a, b, reason);
    case 4:
      kicker.kick_after(1 + static_cast<uint32_t>(random.below(200)));
      reason = b.vcpu.run({.alarm = alarm});
      counts.thread_kicks += reason == StopReason::kKicked;
      kicker.finish();
      // One that came too late would end the next run at once.
      if (reason != StopReason::kKicked && reason != StopReason::kShutdown &&
          b.vcpu.run({.alarm = Branches(0)}) == StopReason::kShutdown)
        return false;
      return catch_up(a, b, reason);
    default: {
      const RunRequest request{.alarm = alarm, .stop_when_interruptible = random.one_in(3)};
      reason = b.vcpu.run(request);
      return a.vcpu.run(request) == reason;
    }
  }
}

void start_traces(test::Guest& a, test::Guest& b, ipt::TraceBuffer* traces, pmu::Random& random) {
  ipt::VariationConfig variation;
  if (random.one_in(3)) {
    variation.tnt_cuts = variation.deferred_tips = variation.psb_placement = true;
    variation.seed = random.next();
  }
  for (test::Guest* guest : {&a, &b}) {
    const TraceRequest request{.sink = traces++, .staging_bytes = 2048, .variation = variation};
    US_CHECK(guest->vcpu.start_trace(request), "the software processor traces");
  }
}

std::string run_program(uint64_t seed, Counts& counts) {
  const std::vector<uint8_t> program = random_program(seed);
  pmu::Random random(seed ^ 0x5eed);
  set_default_executor(Executor::kInterpret);
  test::Guest interpreted;
  set_default_executor(Executor::kTranslate);
  set_translate_after(1 + static_cast<uint32_t>(random.below(random.one_in(2) ? 2 : 12)));
  test::Guest translated;
  prepare(interpreted, program, seed);
  prepare(translated, program, seed);
  translated.vcpu.kick_after(0);
  Kicker kicker(translated.vcpu);
  ipt::TraceBuffer traces[2];
  const bool traced = random.one_in(3);
  if (traced) start_traces(interpreted, translated, traces, random);
  ++counts.programs;
  constexpr uint64_t kMostStops = 3000;
  for (uint64_t stop = 0; stop < kMostStops; ++stop) {
    StopReason reason{};
    const bool same_reason = go_on(interpreted, translated, kicker, random, reason, counts);
    ++counts.stops;
    if (!same_reason || state_of(interpreted) != state_of(translated) ||
        !same_memory(interpreted, translated))
      return fmt::format("seed {}, stop {}\n--- interpreted\n{}--- translated\n{}", seed, stop,
                         interpreted.vcpu.dump(), translated.vcpu.dump());
    if (reason == StopReason::kHalted || reason == StopReason::kShutdown) break;
    if (traced && random.one_in(16)) interpreted.vcpu.cut_trace(), translated.vcpu.cut_trace();
    if (random.one_in(6) && interpreted.vcpu.interruptible()) {
      interpreted.vcpu.inject_interrupt(kTickVector);
      translated.vcpu.inject_interrupt(kTickVector);
      ++counts.interrupts;
    }
  }
  interpreted.vcpu.stop_trace();
  translated.vcpu.stop_trace();
  if (traces[0].bytes() != traces[1].bytes())
    return fmt::format("seed {}: packets differ, {} and {} bytes\n", seed, traces[0].bytes().size(),
                       traces[1].bytes().size());
  counts.traces += traced;
  counts.trace_bytes += traces[0].bytes().size();
  counts.instructions += interpreted.cpu().instructions;
  counts.units += translated.vcpu.translator()->counters().units;
  counts.withdrawn += translated.vcpu.translator()->counters().withdrawn;
  return {};
}

}  // namespace
}  // namespace us::lockstep

int main(int argc, char** argv) {
  uint64_t programs = 60, seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--programs") programs = std::strtoull(argv[i + 1], nullptr, 0);
    if (name == "--seed") seed = std::strtoull(argv[i + 1], nullptr, 0);
  }
  us::lockstep::Counts counts;
  for (uint64_t i = 0; i < programs; ++i) {
    const std::string wrong = us::lockstep::run_program(seed + i, counts);
    if (wrong.empty()) continue;
    fmt::print("MISMATCH {}\nalone: lockstep --programs 1 --seed {}\n", wrong, seed + i);
    return 1;
  }
  fmt::print(
      "seeds {} to {}: {} stops, {} instructions, {} interrupts, {} kicks, {} by another thread, "
      "{} units, {} withdrawn, {} traced with {} bytes\n",
      seed, seed + programs - 1, counts.stops, counts.instructions, counts.interrupts, counts.kicks,
      counts.thread_kicks, counts.units, counts.withdrawn, counts.traces, counts.trace_bytes);
  // A test in which nothing was translated, kicked or traced would prove nothing. Whether another
  // thread came in time is up to the host.
  if (programs < 10) return 0;
  return counts.units < programs || counts.withdrawn == 0 || counts.kicks < programs ||
         counts.trace_bytes == 0;
}
