// String instructions where the host cannot be the reference: long runs, overlaps through aliased
// pages, faults in the middle, segment limits, ports.
#include <atomic>
#include <chrono>
#include <cstring>
#include <doctest/doctest.h>
#include <random>
#include <thread>

#include "hv/cpu/flags.h"
#include "tests/unit/cpu_int/guest.h"

namespace us::test {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr unsigned kAreaSize = 0x4000;

void fill_area(Guest& g, std::mt19937_64& random, Bytes& area) {
  area.resize(kAreaSize);
  for (uint8_t& b : area) b = static_cast<uint8_t>(random());
  REQUIRE(g.memory().write(GuestPhys(kData), area));
}
Bytes read_area(const Guest& g, hv::GuestMemory& memory) {
  Bytes area(kAreaSize);
  REQUIRE(memory.read(GuestPhys(kData), area));
  return area;
}

// REP MOVS one element after the other, on offsets into the area. `page` maps a page's number to
// the one whose memory it shows.
struct Model {
  Bytes& area;
  unsigned page[4] = {0, 1, 2, 3};
  uint8_t& at(int64_t offset) {
    return area[page[offset >> 12] * 4096 + static_cast<unsigned>(offset & 4095)];
  }
  void move(int64_t from, int64_t to, unsigned size, uint64_t count, bool down) {
    for (; count > 0; --count) {
      uint8_t element[8];
      for (unsigned i = 0; i < size; ++i) element[i] = at(from + i);
      for (unsigned i = 0; i < size; ++i) at(to + i) = element[i];
      const int64_t step = down ? -int64_t{size} : int64_t{size};
      from += step, to += step;
    }
  }
};

const Bytes& rep_movs(unsigned size) {
  static const Bytes kCodes[4] = {
      {0xf3, 0xa4}, {0x66, 0xf3, 0xa5}, {0xf3, 0xa5}, {0xf3, 0x48, 0xa5}};
  return kCodes[std::countr_zero(size)];
}

struct Move {
  unsigned size;
  bool down;
  uint64_t count;
  int64_t from, to;
};
Move random_move(std::mt19937_64& random) {
  Move m{};
  m.size = 1u << (random() % 4);
  m.down = random() & 1;
  m.count = random() % (6000 / m.size);
  const auto bytes = static_cast<int64_t>(m.count * m.size);
  const int64_t low = 64 + static_cast<int64_t>(random() % 2000);
  const int64_t distance = static_cast<int64_t>(random() % ((random() & 1) ? 24 : 8000)) - 12;
  m.from = low + 16, m.to = low + 16 + (distance < -16 ? -16 : distance);
  if (random() & 1) std::swap(m.from, m.to);
  if (m.down) m.from += bytes - m.size * (bytes > 0), m.to += bytes - m.size * (bytes > 0);
  return m;
}

void run_move(Guest& g, const Move& m) {
  hv::Cpu& c = g.cpu();
  c.halted = false;
  c.regs[hv::kRsi] = kData + static_cast<uint64_t>(m.from);
  c.regs[hv::kRdi] = kData + static_cast<uint64_t>(m.to);
  c.regs[hv::kRcx] = m.count;
  c.rflags_other = hv::flag::kOne | (m.down ? hv::flag::kDf : 0);
  REQUIRE(g.run(rep_movs(m.size)) == hv::StopReason::kHalted);
}

// A guest in 64-bit mode at the start of an instruction over the last bytes before an unmapped
// page.
struct AtTheEdge {
  static constexpr uint64_t kEdge = kData + 0x1000;
  Guest guest;
  AtTheEdge() {
    guest.catch_faults();
    guest.map_page(kEdge, false);
    guest.cpu().regs[hv::kRsp] = kData + 0x3000;
  }
  uint64_t& reg(hv::Gpr r) { return guest.cpu().regs[r]; }
};

}  // namespace

TEST_CASE("REP MOVS over pages, overlapping either way, copies element by element") {
  constexpr uint64_t kSeed = 4711;
  INFO("seed " << kSeed);
  std::mt19937_64 random(kSeed);
  Guest g;
  Bytes area;
  for (unsigned i = 0; i < 400; ++i) {
    fill_area(g, random, area);
    const Move m = random_move(random);
    INFO("size " << m.size << " count " << m.count << " from " << m.from << " to " << m.to
                 << " down " << m.down);
    Model{area}.move(m.from, m.to, m.size, m.count, m.down);
    run_move(g, m);
    CHECK(read_area(g, g.memory()) == area);
    const auto moved = static_cast<int64_t>(m.count * m.size) * (m.down ? -1 : 1);
    CHECK(g.cpu().regs[hv::kRcx] == 0);
    CHECK(g.cpu().regs[hv::kRsi] == kData + static_cast<uint64_t>(m.from + moved));
    CHECK(g.cpu().regs[hv::kRdi] == kData + static_cast<uint64_t>(m.to + moved));
  }
}

TEST_CASE("REP MOVS between two addresses of one page sees what it wrote itself") {
  constexpr uint64_t kSeed = 815;
  INFO("seed " << kSeed);
  std::mt19937_64 random(kSeed);
  Guest g;
  g.alias_page(kData + 0x2000, kData);
  Bytes area;
  for (unsigned i = 0; i < 200; ++i) {
    fill_area(g, random, area);
    Move m{};
    m.size = 1u << (random() % 4);
    m.down = random() & 1;
    m.count = random() % (2000 / m.size) + 1;
    const auto span = static_cast<int64_t>((m.count - 1) * m.size);
    m.from = 100 + static_cast<int64_t>(random() % 32) + (m.down ? span : 0);
    m.to = 0x2000 + 100 + static_cast<int64_t>(random() % 32) + (m.down ? span : 0);
    if (random() & 1) std::swap(m.from, m.to);
    INFO("size " << m.size << " count " << m.count << " from " << m.from << " to " << m.to
                 << " down " << m.down);
    Model model{area};
    model.page[2] = 0;
    model.move(m.from, m.to, m.size, m.count, m.down);
    run_move(g, m);
    CHECK(read_area(g, g.memory()) == area);
  }
}

TEST_CASE(
    "REP MOVSB into an unmapped page faults with RCX, RSI and RDI at the first byte not moved") {
  AtTheEdge t;
  t.reg(hv::kRsi) = kData + 0x2000;
  t.reg(hv::kRdi) = AtTheEdge::kEdge - 100;
  t.reg(hv::kRcx) = 300;
  REQUIRE(t.guest.run(Bytes{0xf3, 0xa4}) == hv::StopReason::kHalted);
  CHECK(t.guest.caught().vector == hv::kPageFault);
  CHECK(t.guest.caught().error == 2);
  CHECK(t.guest.caught().rip == Guest::kCode);
  CHECK(t.guest.cpu().cr2 == AtTheEdge::kEdge);
  CHECK(t.reg(hv::kRcx) == 200);
  CHECK(t.reg(hv::kRsi) == kData + 0x2000 + 100);
  CHECK(t.reg(hv::kRdi) == AtTheEdge::kEdge);
}

TEST_CASE("REP STOSQ whose next element straddles an unmapped page stops before that element") {
  AtTheEdge t;
  t.reg(hv::kRax) = 0x1122'3344'5566'7788;
  t.reg(hv::kRdi) = AtTheEdge::kEdge - 20;
  t.reg(hv::kRcx) = 9;
  REQUIRE(t.guest.run(Bytes{0xf3, 0x48, 0xab}) == hv::StopReason::kHalted);
  CHECK(t.guest.caught().vector == hv::kPageFault);
  CHECK(t.guest.cpu().cr2 == AtTheEdge::kEdge);
  CHECK(t.reg(hv::kRcx) == 7);
  CHECK(t.reg(hv::kRdi) == AtTheEdge::kEdge - 4);
  const uint8_t* last = t.guest.memory().host(GuestPhys(AtTheEdge::kEdge - 4));
  CHECK(last[0] == 0);
}

TEST_CASE("REP STOSW backwards into an unmapped page stops at its last element") {
  AtTheEdge t;
  t.reg(hv::kRdi) = AtTheEdge::kEdge + 0x1000 + 6;
  t.reg(hv::kRcx) = 100;
  t.guest.cpu().rflags_other |= hv::flag::kDf;
  REQUIRE(t.guest.run(Bytes{0x66, 0xf3, 0xab}) == hv::StopReason::kHalted);
  CHECK(t.guest.caught().vector == hv::kPageFault);
  CHECK(t.reg(hv::kRcx) == 96);
  CHECK(t.reg(hv::kRdi) == AtTheEdge::kEdge + 0x1000 - 2);
}

TEST_CASE("REPE CMPSB that faults leaves the flags it found") {
  AtTheEdge t;
  t.reg(hv::kRsi) = AtTheEdge::kEdge - 50;
  t.reg(hv::kRdi) = kData + 0x2000;
  t.reg(hv::kRcx) = 80;
  const uint64_t before = hv::flag::kCf | hv::flag::kOf | hv::flag::kSf;
  hv::set_arithmetic_flags(t.guest.cpu(), before);
  REQUIRE(t.guest.run(Bytes{0xf3, 0xa6}) == hv::StopReason::kHalted);
  CHECK(t.guest.caught().vector == hv::kPageFault);
  CHECK(hv::arithmetic_flags(t.guest.cpu()) == before);
  CHECK(t.reg(hv::kRcx) == 30);
}

TEST_CASE(
    "a REP instruction with a count of zero touches neither memory nor flags, and counts as one") {
  AtTheEdge t;
  hv::set_arithmetic_flags(t.guest.cpu(), hv::flag::kCf);
  const uint64_t instructions = t.guest.cpu().instructions;
  for (const uint8_t opcode : {0xa4, 0xa6, 0xaa, 0xac, 0xae}) {
    t.guest.cpu().halted = false;
    t.reg(hv::kRsi) = t.reg(hv::kRdi) = AtTheEdge::kEdge;
    t.reg(hv::kRcx) = 0;
    REQUIRE(t.guest.run(Bytes{0xf3, opcode}) == hv::StopReason::kHalted);
    CHECK(t.guest.caught().vector == 255);
    CHECK(t.reg(hv::kRdi) == AtTheEdge::kEdge);
  }
  CHECK(hv::arithmetic_flags(t.guest.cpu()) == hv::flag::kCf);
  CHECK(t.guest.cpu().instructions - instructions == 10);  // each with its HLT
}

TEST_CASE("REPNE SCASB finds a byte on a later page and stops behind it") {
  Guest g;
  hv::Cpu& c = g.cpu();
  *g.memory().host(GuestPhys(kData + 0x2345)) = 0x5a;
  c.regs[hv::kRdi] = kData + 3;
  c.regs[hv::kRcx] = ~0ull;
  c.regs[hv::kRax] = 0x5a;
  REQUIRE(g.run(Bytes{0xf2, 0xae}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRdi] == kData + 0x2346);
  CHECK(c.regs[hv::kRcx] == ~0ull - 0x2343);
  CHECK(hv::zf(c));
}

TEST_CASE(
    "REP INSB reads the port once per byte and stores in order; a fault leaves the port alone") {
  AtTheEdge t;
  t.reg(hv::kRdi) = AtTheEdge::kEdge - 3;
  t.reg(hv::kRcx) = 5;
  t.reg(hv::kRdx) = 0x3f8;
  REQUIRE(t.guest.run(Bytes{0xf3, 0x6c}) == hv::StopReason::kHalted);
  CHECK(t.guest.caught().vector == hv::kPageFault);
  CHECK(t.reg(hv::kRcx) == 2);
  CHECK(t.guest.ports().next == 0x14);
  const uint8_t* stored = t.guest.memory().host(GuestPhys(AtTheEdge::kEdge - 3));
  CHECK(stored[0] == 0x11);
  CHECK(stored[2] == 0x13);
}

TEST_CASE("REP OUTSW writes each word, downwards when DF is set") {
  Guest g;
  hv::Cpu& c = g.cpu();
  const uint16_t words[3] = {0x1111, 0x2222, 0x3333};
  std::memcpy(g.memory().host(GuestPhys(kData)), words, sizeof words);
  c.regs[hv::kRsi] = kData + 4;
  c.regs[hv::kRcx] = 3;
  c.rflags_other |= hv::flag::kDf;
  REQUIRE(g.run(Bytes{0x66, 0xf3, 0x6f}) == hv::StopReason::kHalted);
  CHECK(g.ports().written == std::vector<uint32_t>{0x3333, 0x2222, 0x1111});
  CHECK(c.regs[hv::kRsi] == kData - 2);
}

TEST_CASE("32-bit REP MOVSD through segments ends with #GP where the source segment does") {
  Guest g(Guest::Kind::k32);
  g.catch_faults();
  hv::Cpu& c = g.cpu();
  c.seg[hv::kFs].base = kData;
  c.seg[hv::kFs].limit = 0x102;
  c.seg[hv::kEs].base = kData + 0x1000;
  for (unsigned i = 0; i < 0x200; ++i)
    *g.memory().host(GuestPhys(kData + i)) = static_cast<uint8_t>(i ^ 0x5a);
  c.regs[hv::kRsi] = 0x80;
  c.regs[hv::kRdi] = 0x40;
  c.regs[hv::kRcx] = 1000;
  c.regs[hv::kRsp] = kData + 0x8000;
  REQUIRE(g.run(Bytes{0x64, 0xf3, 0xa5}) == hv::StopReason::kHalted);
  CHECK(g.caught().vector == hv::kGeneralProtection);
  CHECK(g.caught().rip == Guest::kCode);
  CHECK(c.regs[hv::kRcx] == 1000 - 32);
  CHECK(c.regs[hv::kRsi] == 0x100);
  CHECK(std::memcmp(g.memory().host(GuestPhys(kData + 0x1040)),
                    g.memory().host(GuestPhys(kData + 0x80)), 0x80) == 0);
  CHECK(*g.memory().host(GuestPhys(kData + 0x10c0)) == 0);
}

TEST_CASE("16-bit addresses wrap at 64 KiB and leave the upper halves of SI, DI and CX") {
  Guest g(Guest::Kind::k32);
  hv::Cpu& c = g.cpu();
  c.seg[hv::kDs].base = c.seg[hv::kEs].base = kData;
  for (unsigned i = 0; i < 8; ++i) {
    *g.memory().host(GuestPhys(kData + 0xfffc + (i & 3))) = static_cast<uint8_t>(0x10 + (i & 3));
    *g.memory().host(GuestPhys(kData + (i & 3))) = static_cast<uint8_t>(0x20 + (i & 3));
  }
  c.regs[hv::kRsi] = 0xabcd'fffc;
  c.regs[hv::kRdi] = 0x1234'8000;
  c.regs[hv::kRcx] = 0x7777'0008;
  REQUIRE(g.run(Bytes{0x67, 0xf3, 0xa4}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRsi] == 0xabcd'0004);
  CHECK(c.regs[hv::kRdi] == 0x1234'8008);
  CHECK(c.regs[hv::kRcx] == 0x7777'0000);
  const uint8_t wanted[8] = {0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23};
  CHECK(std::memcmp(g.memory().host(GuestPhys(kData + 0x8000)), wanted, 8) == 0);
}

TEST_CASE("REP STOSB over code that was just run makes the new bytes run") {
  Guest g;
  hv::Cpu& c = g.cpu();
  // At kCode + 0x100: INC EAX three times, HLT.
  const Bytes target = {0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0, 0xf4};
  REQUIRE(g.memory().write(GuestPhys(Guest::kCode + 0x100), target));
  c.rip = Guest::kCode + 0x100;
  REQUIRE(g.vcpu().run({}) == hv::StopReason::kHalted);
  REQUIRE(c.regs[hv::kRax] == 3);
  c.halted = false;
  c.regs[hv::kRax] = 0x90;
  c.regs[hv::kRdi] = Guest::kCode + 0x100;
  c.regs[hv::kRcx] = 4;
  REQUIRE(g.run(Bytes{0xf3, 0xaa}) == hv::StopReason::kHalted);
  c.halted = false;
  c.regs[hv::kRax] = 0;
  c.rip = Guest::kCode + 0x100;
  REQUIRE(g.vcpu().run({}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRax] == 1);
}

TEST_CASE("REP STOSB of 200,000 bytes takes four steps, and as many instructions when run whole") {
  constexpr uint64_t kAt = 64u << 20, kCount = 200'000;
  const Bytes code = {0xf3, 0xaa};
  Guest stepped, whole;
  for (Guest* g : {&stepped, &whole}) {
    g->cpu().regs[hv::kRax] = 0x5a;
    g->cpu().regs[hv::kRdi] = kAt;
    g->cpu().regs[hv::kRcx] = kCount;
  }
  hv::Cpu& c = stepped.cpu();
  REQUIRE(stepped.step(code) == hv::StopReason::kStepped);
  for (const uint64_t left : {0x30000u, 0x20000u, 0x10000u}) {
    CHECK(c.regs[hv::kRcx] == left);
    CHECK(c.regs[hv::kRdi] == kAt + kCount - left);
    CHECK(c.rip == Guest::kCode);
    REQUIRE(stepped.vcpu().step() == hv::StopReason::kStepped);
  }
  CHECK(c.regs[hv::kRcx] == 0);
  CHECK(c.rip == Guest::kCode + code.size());
  CHECK(c.instructions == 4);
  REQUIRE(whole.run(code) == hv::StopReason::kHalted);
  CHECK(whole.cpu().instructions == 5);  // with its HLT
  CHECK(std::memcmp(stepped.memory().host(GuestPhys(kAt)), whole.memory().host(GuestPhys(kAt)),
                    kCount + 1) == 0);
}

TEST_CASE(
    "REPNE SCASB that meets its byte at a multiple of 65,536 left is done, as one instruction") {
  constexpr uint64_t kAt = 64u << 20;
  Guest g;
  hv::Cpu& c = g.cpu();
  *g.memory().host(GuestPhys(kAt + 99)) = 7;
  c.regs[hv::kRax] = 7;
  c.regs[hv::kRdi] = kAt;
  c.regs[hv::kRcx] = 0x20000 + 100;
  REQUIRE(g.step(Bytes{0xf2, 0xae}) == hv::StopReason::kStepped);
  CHECK(c.regs[hv::kRcx] == 0x20000);
  CHECK(c.rip == Guest::kCode + 2);
  CHECK(c.instructions == 1);
  CHECK((hv::arithmetic_flags(c) & hv::flag::kZf) != 0);
}

TEST_CASE("a kick stops a REP LODSB of 2^46 bytes between two iterations") {
  constexpr uint64_t kCount = uint64_t{1} << 46;
  Guest g;
  hv::Cpu& c = g.cpu();
  g.show_first_pages_everywhere();
  c.regs[hv::kRsi] = 0;
  c.regs[hv::kRcx] = kCount;
  REQUIRE(g.memory().write(GuestPhys(Guest::kCode), Bytes{0xf3, 0xac, 0xf4}));
  c.rip = Guest::kCode;
  std::atomic<bool> done = false;
  std::thread kicker([&] {
    for (; !done; std::this_thread::sleep_for(std::chrono::milliseconds(2))) g.vcpu().kick();
  });
  // A kick may come before the first piece is through.
  while (c.regs[hv::kRcx] == kCount) REQUIRE(g.vcpu().run({}) == hv::StopReason::kKicked);
  done = true;
  kicker.join();
  CHECK(c.rip == Guest::kCode);
  CHECK(c.regs[hv::kRcx] != 0);
  CHECK(c.regs[hv::kRcx] % 65'536 == 0);
  CHECK(c.instructions == (kCount - c.regs[hv::kRcx]) / 65'536);
}

}  // namespace us::test
