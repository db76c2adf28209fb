// What no comparison with a host shows: approximations that are our own choice, control registers,
// faults and their order.
#include <bit>
#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <emmintrin.h>
#include <limits>

#include "hv/cpu/sse.h"
#include "tests/unit/cpu_sse/guest.h"

namespace us::test {
namespace {

using hv::Exit;
using hv::Mode;

constexpr unsigned kMiddle = kWindowSize / 2;  // first byte of the second page

float approximate(Guest& guest, uint8_t opcode, float value) {
  MachineState s;
  s.xmm[1].ps[0] = value;
  guest.load(s, 0);
  REQUIRE(guest.run({0xf3, 0x0f, opcode, 0xc1}));  // xmm0, xmm1
  return guest.cpu().xmm[0].ps[0];
}
constexpr uint8_t kRcp = 0x53, kRsqrt = 0x52;

uint32_t bits(float f) { return std::bit_cast<uint32_t>(f); }
float from_bits(uint32_t b) { return std::bit_cast<float>(b); }

void check_fault(Guest& guest, hv::Vector vector) {
  CHECK(guest.cpu().exit == Exit::kFault);
  CHECK(guest.cpu().fault.vector == vector);
}

}  // namespace

TEST_CASE("RCPSS and RSQRTSS stay within 1.5 * 2^-12 of the true value over all magnitudes") {
  Guest guest;
  Random random(7);
  const double bound = 1.5 / 4096;
  double worst_rcp = 0, worst_rsqrt = 0;
  for (unsigned i = 0; i < 200'000; ++i) {
    const uint32_t exponent = 1 + static_cast<uint32_t>(random() % 250);
    const float x = from_bits(exponent << 23 | static_cast<uint32_t>(random() & 0x7f'ffff));
    const double r = approximate(guest, kRcp, x), q = approximate(guest, kRsqrt, x);
    worst_rcp = std::max(worst_rcp, std::fabs(r * x - 1));
    worst_rsqrt = std::max(worst_rsqrt, std::fabs(q * std::sqrt(static_cast<double>(x)) - 1));
  }
  MESSAGE("worst relative errors ", worst_rcp, " and ", worst_rsqrt);
  CHECK(worst_rcp <= bound);
  CHECK(worst_rsqrt <= bound);
  CHECK(worst_rcp > 0);
}

TEST_CASE("RCPSS of zero, denormals, infinity and NaN gives what SDM 2 tabulates") {
  Guest guest;
  const uint32_t infinity = 0x7f80'0000;
  CHECK(bits(approximate(guest, kRcp, 0.0f)) == infinity);
  CHECK(bits(approximate(guest, kRcp, -0.0f)) == (infinity | 0x8000'0000));
  CHECK(bits(approximate(guest, kRcp, from_bits(0x007f'ffff))) == infinity);
  CHECK(bits(approximate(guest, kRcp, from_bits(infinity))) == 0);
  CHECK(bits(approximate(guest, kRcp, from_bits(0xff80'0000))) == 0x8000'0000);
  CHECK(bits(approximate(guest, kRcp, from_bits(0x7f80'0001))) == 0x7fc0'0001);
  CHECK(approximate(guest, kRcp, 1.0f) == 1.0f);
  CHECK(approximate(guest, kRcp, -4.0f) == -0.25f);
  // The largest operand sure to give a normal number, the smallest sure to give zero.
  CHECK(bits(approximate(guest, kRcp, from_bits(0x7e7f'e800))) >= 0x0080'0000);
  CHECK(bits(approximate(guest, kRcp, from_bits(0x7e80'0c01))) == 0);
}

TEST_CASE("RSQRTSS of zero, denormals, negatives, infinity and NaN gives what SDM 2 tabulates") {
  Guest guest;
  const uint32_t infinity = 0x7f80'0000;
  CHECK(bits(approximate(guest, kRsqrt, 0.0f)) == infinity);
  CHECK(bits(approximate(guest, kRsqrt, -0.0f)) == (infinity | 0x8000'0000));
  CHECK(bits(approximate(guest, kRsqrt, from_bits(0x8000'0001))) == (infinity | 0x8000'0000));
  CHECK(bits(approximate(guest, kRsqrt, -1.0f)) == 0xffc0'0000);
  CHECK(bits(approximate(guest, kRsqrt, from_bits(0xff80'0000))) == 0xffc0'0000);
  CHECK(bits(approximate(guest, kRsqrt, from_bits(infinity))) == 0);
  CHECK(bits(approximate(guest, kRsqrt, from_bits(0xff80'1000))) == 0xffc0'1000);
  CHECK(approximate(guest, kRsqrt, 16.0f) == 0.25f);
  CHECK(approximate(guest, kRsqrt, from_bits(0x0080'0000)) == 0x1p+63f);
}

TEST_CASE("RCPPS and RSQRTPS give in each element what the scalar forms give, and raise no flag") {
  Guest guest;
  Random random(11);
  for (unsigned i = 0; i < 2000; ++i) {
    for (const uint8_t opcode : {kRcp, kRsqrt}) {
      MachineState s;
      s.xmm[1] = random_xmm(random);
      s.mxcsr = 0x1f80 | (random() & 0xe040);
      guest.load(s, 0);
      REQUIRE(guest.run({0x0f, opcode, 0xc1}));
      const hv::Xmm packed = guest.cpu().xmm[0];
      CHECK(guest.cpu().mxcsr == s.mxcsr);
      for (unsigned e = 0; e < 4; ++e)
        CHECK(packed.d[e] == bits(approximate(guest, opcode, s.xmm[1].ps[e])));
    }
  }
}

TEST_CASE("LDMXCSR loads allowed bits and turns unmasked exceptions on; reserved bits raise #GP") {
  Guest guest;
  MachineState s;
  const uint32_t value = 0x1d80 | 0xc000 | 0x21;
  std::memcpy(s.window.data(), &value, 4);
  guest.load(s, 0);
  REQUIRE(guest.run({0x0f, 0xae, 0x13}));
  CHECK(guest.cpu().exit == Exit::kContinue);
  CHECK(guest.cpu().mxcsr == value);
  CHECK((guest.cpu().mode.bits & Mode::kSseTraps) != 0);

  Guest other;
  const uint32_t bad = 0x11f80;
  std::memcpy(s.window.data(), &bad, 4);
  other.load(s, 0);
  REQUIRE(other.run({0x0f, 0xae, 0x13}));
  check_fault(other, hv::kGeneralProtection);
  CHECK(other.cpu().mxcsr == 0x1f80);
}

TEST_CASE("a host's rounding mode survives a guest that rounds otherwise") {
  Guest guest;
  MachineState s;
  s.mxcsr = 0x7f80;  // toward zero
  s.xmm[0].pd[0] = 1.75;
  guest.load(s, 0);
  REQUIRE(guest.run({0xf2, 0x48, 0x0f, 0x2d, 0xc0}));  // cvtsd2si rax, xmm0
  CHECK(guest.cpu().regs[0] == 1);
  CHECK(guest.cpu().host_mxcsr == 0);
  volatile double third = 1.75;
  CHECK(_mm_cvtsd_si64(_mm_set_sd(third)) == 2);
}

TEST_CASE("an unmasked exception comes as #XM, or as #UD without CR4.OSXMMEXCPT") {
  Guest guest;
  MachineState s;
  s.mxcsr = 0x1d80;  // divide by zero unmasked
  s.xmm[0].pd[0] = 1.0;
  for (const bool announced : {true, false}) {
    guest.cpu().cr4 = hv::cr4::kOsfxsr | (announced ? hv::cr4::kOsxmmexcpt : 0);
    guest.load(s, 0);
    REQUIRE(guest.run({0xf2, 0x0f, 0x5e, 0xc1}));  // divsd xmm0, xmm1
    check_fault(guest, announced ? hv::kSimdError : hv::kInvalidOpcode);
    CHECK(guest.cpu().xmm[0].pd[0] == 1.0);
    CHECK(guest.cpu().mxcsr == 0x1d84);
  }
}

TEST_CASE("SSE instructions raise #UD with CR0.EM or without CR4.OSFXSR, #NM with CR0.TS") {
  Guest guest;
  hv::Cpu& c = guest.cpu();
  guest.load({}, 0);
  const auto run = [&](uint64_t cr0, uint64_t cr4, uint32_t bits) {
    c.cr0 = hv::cr0::kPe | cr0;
    c.cr4 = cr4;
    c.mode.bits = Mode::kCode64 | bits;
    REQUIRE(guest.run({0x0f, 0x58, 0xc1}));  // addps
  };
  const uint32_t both = Mode::kSseOff | Mode::kFpuOff;
  run(hv::cr0::kEm, hv::cr4::kOsfxsr, both);
  check_fault(guest, hv::kInvalidOpcode);
  run(hv::cr0::kTs, hv::cr4::kOsfxsr, both);
  check_fault(guest, hv::kDeviceNotAvailable);
  run(hv::cr0::kTs, 0, both);
  check_fault(guest, hv::kInvalidOpcode);
  run(0, 0, Mode::kSseOff);
  check_fault(guest, hv::kInvalidOpcode);
}

TEST_CASE("MMX instructions raise #UD with CR0.EM, #NM with CR0.TS, and need no CR4.OSFXSR") {
  Guest guest;
  hv::Cpu& c = guest.cpu();
  guest.load({}, 0);
  c.mode.bits |= Mode::kFpuOff;
  c.cr0 |= hv::cr0::kEm;
  REQUIRE(guest.run({0x0f, 0xfc, 0xc1}));  // paddb
  check_fault(guest, hv::kInvalidOpcode);
  c.cr0 = hv::cr0::kPe | hv::cr0::kTs;
  REQUIRE(guest.run({0x0f, 0xfc, 0xc1}));
  check_fault(guest, hv::kDeviceNotAvailable);
  c.cr0 = hv::cr0::kPe;
  c.cr4 = 0;
  c.mode.bits = Mode::kCode64 | Mode::kSseOff;
  REQUIRE(guest.run({0x0f, 0xfc, 0xc1}));
  CHECK(c.exit == Exit::kContinue);
}

TEST_CASE("MOVNTI and fences work whatever CR0 says of the floating-point units") {
  Guest guest;
  guest.load({}, 0);
  guest.cpu().cr0 |= hv::cr0::kTs;
  guest.cpu().mode.bits |= Mode::kFpuOff | Mode::kSseOff;
  guest.cpu().regs[1] = 0x1234;
  REQUIRE(guest.run({0x0f, 0xc3, 0x0b}));  // movnti [rbx], ecx
  CHECK(guest.cpu().exit == Exit::kContinue);
  CHECK(guest.window()[0] == 0x34);
  REQUIRE(guest.run({0x0f, 0xae, 0xf0}));
  CHECK(guest.cpu().exit == Exit::kContinue);
}

TEST_CASE("a pending x87 exception comes as #MF before an MMX instruction does anything") {
  Guest guest;
  MachineState s;
  s.valid = 5;
  s.mm[1] = 0x0102;
  for (const std::initializer_list<uint8_t> code :
       {std::initializer_list<uint8_t>{0x0f, 0xfc, 0xc1},
        {0x0f, 0x6f, 0x03},
        {0x0f, 0x7f, 0x0b},
        {0x0f, 0x77},
        {0x0f, 0xf7, 0xc1}}) {
    guest.load(s, 0);
    guest.cpu().fpu.status |= 0x80;
    REQUIRE(guest.run(code));
    check_fault(guest, hv::kX87Error);
    CHECK(guest.cpu().fpu.valid == 5);
    CHECK(guest.cpu().fpu.reg[0].mantissa == 0);
    CHECK(guest.window()[0] == 0);
  }
}

TEST_CASE("a misaligned operand raises #GP for MOVAPS and ADDPS but not for MOVUPS and ADDSD") {
  Guest guest;
  guest.load({}, 1);
  REQUIRE(guest.run({0x0f, 0x28, 0x03}));
  check_fault(guest, hv::kGeneralProtection);
  REQUIRE(guest.run({0x0f, 0x29, 0x03}));
  check_fault(guest, hv::kGeneralProtection);
  REQUIRE(guest.run({0x0f, 0x58, 0x03}));
  check_fault(guest, hv::kGeneralProtection);
  REQUIRE(guest.run({0x0f, 0x10, 0x03}));
  CHECK(guest.cpu().exit == Exit::kContinue);
  REQUIRE(guest.run({0xf2, 0x0f, 0x58, 0x03}));
  CHECK(guest.cpu().exit == Exit::kContinue);
}

TEST_CASE("a misaligned operand in page 0 faults though no TLB entry was ever filled") {
  for (uint64_t at = 1; at < 16; ++at) {
    Guest guest;
    guest.load({}, 0);
    guest.cpu().regs[hv::kRbx] = at;
    REQUIRE(guest.run({0x0f, 0x28, 0x03}));  // MOVAPS XMM0, [RBX]
    CHECK(guest.cpu().exit == Exit::kFault);
    REQUIRE(guest.run({0x0f, 0x29, 0x03}));
    CHECK(guest.cpu().exit == Exit::kFault);
  }
}

TEST_CASE("an unaligned store over a page boundary stores all its bytes") {
  Guest guest;
  MachineState s;
  for (unsigned i = 0; i < 16; ++i) s.xmm[0].b[i] = static_cast<uint8_t>(i + 1);
  guest.load(s, kMiddle - 5);
  REQUIRE(guest.run({0xf3, 0x0f, 0x7f, 0x03}));
  CHECK(guest.cpu().exit == Exit::kContinue);
  CHECK(std::memcmp(guest.window() + kMiddle - 5, s.xmm[0].b, 16) == 0);
  CHECK(guest.window()[kMiddle + 11] == 0);
}

TEST_CASE("MASKMOVDQU with an empty mask touches no memory, not even an address without RAM") {
  Guest guest;
  guest.load({}, 0);
  guest.cpu().regs[hv::kRdi] = 0x7fff'0000'0000;
  REQUIRE(guest.run({0x66, 0x0f, 0xf7, 0xc1}));
  CHECK(guest.cpu().exit == Exit::kContinue);
}

}  // namespace us::test
