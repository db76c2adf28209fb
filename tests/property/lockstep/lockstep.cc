// Lockstep: the interpreter and the translator run the same random program; both are stopped at the
// same random places, interrupted there, and must be alike in every register, flag, count and byte.
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <string>

#include "base/check.h"
#include "guest.h"
#include "hv/core/executor.h"
#include "hv/cpu/translate/translator.h"
#include "pmu/random.h"
#include "program.h"

namespace us::lockstep {
namespace {

using namespace hv;

constexpr uint64_t kResume = 0x2e'0000, kCodeEnd = 0x1f'0000, kFaultsLeft = kTicksAt + 8;

struct Counts {
  uint64_t programs = 0, stops = 0, instructions = 0, interrupts = 0, units = 0, withdrawn = 0;
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

// Both go on to the same place: some branches, or some single steps. True: the program goes on.
bool go_on(test::Guest& a, test::Guest& b, pmu::Random& random, StopReason& reason) {
  if (random.one_in(8)) {
    for (uint64_t n = random.below(20); n > 0; --n) {
      reason = a.vcpu.step();
      if (b.vcpu.step() != reason) return false;
    }
  } else {
    const uint64_t far = random.one_in(4) ? 400 : random.one_in(2) ? 3 : 40;
    const Branches alarm(a.cpu().branches + 1 + random.below(far));
    reason = a.vcpu.run({.alarm = alarm});
    if (b.vcpu.run({.alarm = alarm}) != reason) return false;
  }
  return true;
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
  ++counts.programs;
  constexpr uint64_t kMostStops = 3000;
  for (uint64_t stop = 0; stop < kMostStops; ++stop) {
    StopReason reason{};
    const bool same_reason = go_on(interpreted, translated, random, reason);
    ++counts.stops;
    if (!same_reason || state_of(interpreted) != state_of(translated) ||
        !same_memory(interpreted, translated))
      return fmt::format("seed {}, stop {}\n--- interpreted\n{}--- translated\n{}", seed, stop,
                         interpreted.vcpu.dump(), translated.vcpu.dump());
    if (reason == StopReason::kHalted || reason == StopReason::kShutdown) break;
    if (random.one_in(6) && interpreted.vcpu.interruptible()) {
      interpreted.vcpu.inject_interrupt(kTickVector);
      translated.vcpu.inject_interrupt(kTickVector);
      ++counts.interrupts;
    }
  }
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
  fmt::print("seeds {} to {}: {} stops, {} instructions, {} interrupts, {} units, {} withdrawn\n",
             seed, seed + programs - 1, counts.stops, counts.instructions, counts.interrupts,
             counts.units, counts.withdrawn);
  // A test in which nothing was translated would prove nothing.
  return counts.units < programs || counts.withdrawn == 0;
}
