// What 64-bit mode dropped, and single forms the random generator does not make.
#include <cstring>
#include <doctest/doctest.h>

#include "hv/cpu/flags.h"
#include "tests/unit/cpu_int/guest.h"

namespace us::test {
namespace {

using Bytes = std::vector<uint8_t>;

unsigned packed(unsigned value) { return value / 10 << 4 | value % 10; }

// Runs `code` with AX and BL given; returns AX.
unsigned with_ax(Guest& g, const Bytes& code, unsigned ax, unsigned bl) {
  hv::Cpu& c = g.cpu();
  c.halted = false;
  c.regs[hv::kRax] = ax;
  c.regs[hv::kRbx] = bl;
  REQUIRE(g.run(code) == hv::StopReason::kHalted);
  return c.regs[hv::kRax] & 0xffff;
}

}  // namespace

TEST_CASE("ADD then DAA of any two packed decimal numbers is their decimal sum") {
  Guest g(Guest::Kind::k32);
  for (unsigned a = 0; a < 100; ++a) {
    for (unsigned b = 0; b < 100; ++b) {
      const unsigned ax = with_ax(g, {0x00, 0xd8, 0x27}, packed(a), packed(b));
      CHECK((ax & 0xff) == packed((a + b) % 100));
      CHECK(hv::cf(g.cpu()) == (a + b > 99));
    }
  }
}

TEST_CASE("SUB then DAS of any two packed decimal numbers is their decimal difference") {
  Guest g(Guest::Kind::k32);
  for (unsigned a = 0; a < 100; ++a) {
    for (unsigned b = 0; b < 100; ++b) {
      const unsigned ax = with_ax(g, {0x28, 0xd8, 0x2f}, packed(a), packed(b));
      CHECK((ax & 0xff) == packed((a + 100 - b) % 100));
      CHECK(hv::cf(g.cpu()) == (a < b));
    }
  }
}

TEST_CASE("ADD then AAA and SUB then AAS of two digits carry into and borrow from AH") {
  Guest g(Guest::Kind::k32);
  for (unsigned a = 0; a < 10; ++a) {
    for (unsigned b = 0; b < 10; ++b) {
      const unsigned sum = with_ax(g, {0x00, 0xd8, 0x37}, 0x500 | a, b);
      CHECK(sum == ((0x500 + ((a + b) / 10 << 8)) | (a + b) % 10));
      CHECK(hv::cf(g.cpu()) == (a + b > 9));
      const unsigned difference = with_ax(g, {0x28, 0xd8, 0x3f}, 0x500 | a, b);
      CHECK(difference == ((a < b ? 0x400u : 0x500u) | (a + 10 - b) % 10));
      CHECK(hv::af(g.cpu()) == (a < b));
    }
  }
}

TEST_CASE("AAM splits AL by its base, AAD joins it again") {
  Guest g(Guest::Kind::k32);
  for (unsigned value = 0; value < 100; ++value) {
    const unsigned digits = with_ax(g, {0xd4, 0x0a}, value, 0);
    CHECK(digits == (value / 10 << 8 | value % 10));
    CHECK(with_ax(g, {0xd5, 0x0a}, digits, 0) == value);
    CHECK(hv::zf(g.cpu()) == (value == 0));
  }
}

TEST_CASE("AAM with a base of zero raises #DE") {
  Guest g(Guest::Kind::k32);
  g.catch_faults();
  g.cpu().regs[hv::kRsp] = kData + 0x800;
  CHECK(with_ax(g, {0xd4, 0x00}, 7, 0) == 7);
  CHECK(g.caught().vector == hv::kDivideError);
}

TEST_CASE("BOUND passes an index at either limit and raises #BR one beyond") {
  Guest g(Guest::Kind::k32);
  g.catch_faults();
  hv::Cpu& c = g.cpu();
  const int32_t limits[2] = {-5, 70000};
  std::memcpy(g.memory().host(GuestPhys(kData)), limits, sizeof limits);
  for (const auto& [index, passes] :
       {std::pair<int32_t, bool>{-5, true}, {70000, true}, {-6, false}, {70001, false}}) {
    c.halted = false;
    c.regs[hv::kRax] = static_cast<uint32_t>(index);
    c.regs[hv::kRbx] = kData;
    c.regs[hv::kRsp] = kData + 0x800;
    REQUIRE(g.run(Bytes{0x62, 0x03}) == hv::StopReason::kHalted);
    CHECK(g.caught().vector == (passes ? 255 : hv::kBoundRange));
  }
}

TEST_CASE("SALC spreads CF over AL") {
  Guest g(Guest::Kind::k32);
  CHECK(with_ax(g, {0xf9, 0xd6}, 0x1234, 0) == 0x12ff);
  CHECK(with_ax(g, {0xf8, 0xd6}, 0x1234, 0) == 0x1200);
}

TEST_CASE("MOV between the accumulator and a 64-bit direct address reaches it") {
  Guest g;
  hv::Cpu& c = g.cpu();
  // The page above 4 GiB that shows physical page 0.
  std::memset(g.memory().host(GuestPhys(0x2000 + 8 * 4)), 0, 8);
  const uint64_t entry = 0x3003;
  std::memcpy(g.memory().host(GuestPhys(0x2000 + 8 * 4)), &entry, 8);  // 4 GiB: as 0
  c.regs[hv::kRax] = 0x1122'3344'5566'7788;
  const Bytes store = {0x48, 0xa3, 0x40, 0x00, 0x20, 0x00, 0x01, 0x00, 0x00, 0x00};
  REQUIRE(g.run(store) == hv::StopReason::kHalted);
  uint64_t stored;
  std::memcpy(&stored, g.memory().host(GuestPhys(0x20'0040)), 8);
  CHECK(stored == 0x1122'3344'5566'7788);
  c.halted = false;
  c.regs[hv::kRax] = 0xffff'ffff'ffff'ffff;
  REQUIRE(g.run(Bytes{0xa1, 0x40, 0x00, 0x20, 0x00, 0x01, 0x00, 0x00, 0x00}) ==
          hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRax] == 0x5566'7788);
}

TEST_CASE("LOCK is accepted where it may stand and raises #UD elsewhere") {
  Guest g;
  g.catch_faults();
  hv::Cpu& c = g.cpu();
  c.regs[hv::kRbx] = kData;
  c.regs[hv::kRax] = 5;
  REQUIRE(g.run(Bytes{0xf0, 0x01, 0x03}) == hv::StopReason::kHalted);  // LOCK ADD [RBX], EAX
  CHECK(*g.memory().host(GuestPhys(kData)) == 5);
  for (const Bytes& code : {Bytes{0xf0, 0x01, 0xc3}, Bytes{0xf0, 0x89, 0x03}}) {
    c.halted = false;
    REQUIRE(g.run(code) == hv::StopReason::kHalted);
    CHECK(g.caught().vector == hv::kInvalidOpcode);
  }
}

TEST_CASE("CMPXCHG16B at an address that is not a multiple of 16 raises #GP") {
  Guest g;
  g.catch_faults();
  g.cpu().regs[hv::kRbx] = kData + 8;
  REQUIRE(g.run(Bytes{0x48, 0x0f, 0xc7, 0x0b}) == hv::StopReason::kHalted);
  CHECK(g.caught().vector == hv::kGeneralProtection);
}

TEST_CASE("TZCNT and LZCNT encodings run as BSF and BSR while BMI1 and ABM are not offered") {
  Guest g;
  hv::Cpu& c = g.cpu();
  c.regs[hv::kRcx] = 0x50;
  REQUIRE(g.run(Bytes{0xf3, 0x0f, 0xbd, 0xc1}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRax] == 6);
  c.halted = false;
  c.regs[hv::kRcx] = 0;
  c.regs[hv::kRax] = 0x77;
  REQUIRE(g.run(Bytes{0xf3, 0x0f, 0xbc, 0xc1}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRax] == 0x77);
  CHECK(hv::zf(c));
}

TEST_CASE(
    "a read-modify-write of a page that cannot be written changes neither flags nor registers") {
  for (const Bytes& code :
       {Bytes{0x01, 0x03}, Bytes{0xff, 0x03}, Bytes{0x87, 0x03}, Bytes{0x0f, 0xc1, 0x03},
        Bytes{0x0f, 0xb1, 0x0b}, Bytes{0xd1, 0x23}, Bytes{0x0f, 0xab, 0x03}}) {
    Guest g;
    g.catch_faults();
    hv::Cpu& c = g.cpu();
    c.cr0 |= hv::cr0::kWp;
    const uint64_t read_only = (kData + 0x1000) | 1;
    std::memcpy(g.memory().host(GuestPhys(0x4008)), &read_only, 8);
    c.regs[hv::kRbx] = kData + 0x1000;
    c.regs[hv::kRax] = 0x23;
    c.regs[hv::kRcx] = 0x45;
    hv::set_arithmetic_flags(c, hv::flag::kZf | hv::flag::kOf | hv::flag::kCf);
    REQUIRE(g.run(code) == hv::StopReason::kHalted);
    CHECK(g.caught().vector == hv::kPageFault);
    CHECK(g.caught().error == 3);
    CHECK(hv::arithmetic_flags(c) == (hv::flag::kZf | hv::flag::kOf | hv::flag::kCf));
    CHECK(c.regs[hv::kRax] == 0x23);
    CHECK(c.regs[hv::kRcx] == 0x45);
  }
}

}  // namespace us::test
