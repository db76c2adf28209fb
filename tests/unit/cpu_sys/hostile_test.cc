// A guest may hold anything in its registers, tables and code: the host must neither crash nor
// hang, and blocks must lead to the very state that single steps lead to.
#include <doctest/doctest.h>
#include <random>

#include "guest.h"

namespace us::hv::test {
namespace {

// First bytes that lead into the privileged part of the processor.
constexpr int kStarts[][3] = {
    {0x0f, 0x00, -1}, {0x0f, 0x01, -1},   {0x0f, 0x02, -1}, {0x0f, 0x03, -1}, {0x0f, 0x05, 0x90},
    {0x0f, 0x06, -1}, {0x0f, 0x07, 0x90}, {0x0f, 0x20, -1}, {0x0f, 0x21, -1}, {0x0f, 0x22, -1},
    {0x0f, 0x23, -1}, {0x0f, 0x30, -1},   {0x0f, 0x31, -1}, {0x0f, 0x32, -1}, {0x0f, 0x34, -1},
    {0x0f, 0x35, -1}, {0x0f, 0xa2, -1},   {0x0f, 0xae, -1}, {0x0f, 0xb2, -1}, {0x0f, 0xb4, -1},
    {0x8e, -1, -1},   {0x8c, -1, -1},     {0x9a, -1, -1},   {0xca, -1, -1},   {0xcb, -1, -1},
    {0xcc, -1, -1},   {0xcd, -1, -1},     {0xcf, -1, -1},   {0x48, 0xcf, -1}, {0xe4, -1, -1},
    {0xec, -1, -1},   {0xef, -1, -1},     {0xea, -1, -1},   {0xff, 0x18, -1}, {0xff, 0x28, -1},
    {0xfa, -1, -1},   {0xfb, -1, -1},     {0x9d, -1, -1},   {0xc4, -1, -1},   {0xc5, -1, -1},
    {0x17, -1, -1},   {0x1f, -1, -1},     {0x6c, -1, -1},   {0x6f, -1, -1},   {0xf1, -1, -1}};

class Chaos {
 public:
  explicit Chaos(uint64_t seed) : random_(seed) {}

  uint64_t any() { return random_(); }
  uint64_t below(uint64_t n) { return random_() % n; }
  // Values at which things tend to happen.
  uint64_t value() {
    switch (below(6)) {
      case 0: return below(0x100);
      case 1: return kGdtAt + below(0x3000);
      case 2: return kCodeAt + below(0x1000);
      case 3: return below(16 << 20);
      case 4: return ~below(0x1000);
      default: return any();
    }
  }

  void scramble(Guest& g) {
    Cpu& c = g.cpu();
    const uint64_t mode = below(4);
    if (mode < 2) g.enter_long_mode();
    if (mode == 2) g.enter_protected_mode();
    if (mode == 3) real_mode(c);
    if (mode < 3 && below(2) != 0) g.enter_user(mode < 2);
    for (unsigned i = 0; i < 16; ++i) c.regs[i] = value();
    if (below(2) != 0) c.regs[kRsp] = kStackTop - below(0x2000);
    c.regs[kRcx] &= 0xffff'ffff'0000'003f;  // keeps REP short
    if (mode != 3 && below(2) != 0) c.regs[kRcx] = below(0x40);
    c.msr.star = value() << 32;
    c.msr.lstar = kCodeAt + below(0x800);
    c.msr.sysenter_cs = below(0x50);
    c.msr.sysenter_eip = kCodeAt + below(0x800);
    c.rflags_other = (any() & 0x27'7700) | flag::kOne;
    corrupt(g);
    code(g);
    update_mode(c);
    flush_tlb_all(c);
  }

 private:
  void real_mode(Cpu& c) {
    for (const Seg s : {kCs, kSs, kDs, kEs, kFs, kGs})
      c.seg[s] = {.base = 0, .limit = 0xffff, .access = 0x93};
    c.seg[kCs].base = kCodeAt;
    c.idtr = {.base = kIdtAt, .limit = 0x3ff};
    c.rip = 0;
  }

  void corrupt(Guest& g) {
    for (unsigned i = 0; i < 24; ++i) {
      const uint64_t at = below(2) != 0 ? kGdtAt + below(0x2800) : kPml4At + below(0x3000);
      g.poke64(at & ~uint64_t{7},
               below(2) != 0 ? any() : g.peek64(at & ~uint64_t{7}) ^ (1ull << below(64)));
    }
  }

  void code(Guest& g) {
    uint64_t at = kCodeAt;
    while (at < kCodeAt + 0x800) {
      const auto& start = kStarts[below(std::size(kStarts))];
      if (below(4) == 0) g.put(at++, {below(2) != 0 ? 0x66 : 0xf3});
      if (below(4) == 0) g.put(at++, {0x48});
      for (const int b : start) g.put(at++, {b < 0 ? static_cast<int>(below(256)) : b});
      for (uint64_t i = below(6); i-- > 0;) g.put(at++, {static_cast<int>(below(256))});
    }
  }

  std::mt19937_64 random_;
};

TEST_CASE("random privileged code over random tables never brings the host down") {
  constexpr uint64_t kSeed = 7100;
  for (uint64_t i = 0; i < 400; ++i) {
    INFO("seed ", kSeed + i);
    Guest g;
    Chaos(kSeed + i).scramble(g);
    for (unsigned step = 0; step < 200 && !g.cpu().shutdown; ++step) {
      g.vcpu.step();
      g.cpu().halted = false;
    }
    CHECK(g.cpu().exit != Exit::kNeedsStep);
  }
}

bool same_registers(Guest& a, Guest& b) {
  return a.vcpu.registers() == b.vcpu.registers() && a.cpu().instructions == b.cpu().instructions &&
         a.cpu().shutdown == b.cpu().shutdown;
}

TEST_CASE(
    "running in blocks and stepping lead to the same state, memory and translations' A and D "
    "bits") {
  constexpr uint64_t kSeed = 9300;
  for (uint64_t i = 0; i < 200; ++i) {
    INFO("seed ", kSeed + i);
    Guest blocks, steps;
    Chaos(kSeed + i).scramble(blocks);
    Chaos(kSeed + i).scramble(steps);
    // A run of code without conditional branches has no alarm: the bus ends it after so many
    // blocks.
    blocks.bus.attention_at = 20 + i;
    for (unsigned stops = 0; stops < 40; ++stops) {
      const StopReason reason = blocks.vcpu.run({.alarm = Branches(blocks.cpu().branches + 1)});
      blocks.cpu().halted = false;
      if (reason == StopReason::kShutdown || reason == StopReason::kAttention) break;
    }
    const uint64_t target = blocks.cpu().instructions;
    for (unsigned n = 0; n < target + 20'000 && steps.cpu().instructions <= target; ++n) {
      if (same_registers(steps, blocks)) break;
      steps.vcpu.step();
      steps.cpu().halted = false;
    }
    REQUIRE(steps.cpu().instructions == target);
    REQUIRE(same_registers(steps, blocks));
    REQUIRE(std::memcmp(steps.memory->host(GuestPhys(0)), blocks.memory->host(GuestPhys(0)),
                        16 << 20) == 0);
  }
}

}  // namespace
}  // namespace us::hv::test
