// Stack instructions where the host cannot be the reference: faults, privilege, 32-bit modes.
#include <cstring>
#include <doctest/doctest.h>

#include "hv/cpu/flags.h"
#include "tests/unit/cpu_int/guest.h"

namespace us::test {
namespace {

using Bytes = std::vector<uint8_t>;

template <class T>
T peek(Guest& g, uint64_t address) {
  T value;
  std::memcpy(&value, g.memory().host(GuestPhys(address)), sizeof value);
  return value;
}
template <class T>
void put(Guest& g, uint64_t address, T value) {
  std::memcpy(g.memory().host(GuestPhys(address)), &value, sizeof value);
}

uint64_t pop_flags(Guest& g, uint64_t value) {
  hv::Cpu& c = g.cpu();
  c.halted = false;
  c.regs[hv::kRsp] = kData + 0x800;
  put<uint64_t>(g, kData + 0x800, value);
  // By the stepper: at CPL 3 a HLT would fault.
  REQUIRE(g.step(Bytes{0x9d}) == hv::StopReason::kStepped);
  CHECK(c.regs[hv::kRsp] == kData + 0x808);
  return hv::rflags(c);
}

}  // namespace

TEST_CASE("PUSH below an unmapped page faults and leaves RSP") {
  for (const Bytes& code : {Bytes{0x50}, Bytes{0x6a, 0x01}, Bytes{0x9c}, Bytes{0xff, 0x33},
                            Bytes{0x0f, 0xa0}, Bytes{0xc8, 0x10, 0x00, 0x02}}) {
    Guest g;
    g.catch_faults();
    g.map_page(kData + 0x1000, false);
    g.cpu().regs[hv::kRsp] = kData + 0x2004;
    g.cpu().regs[hv::kRbx] = kData;
    g.cpu().regs[hv::kRbp] = kData + 0x3000;
    REQUIRE(g.run(code) == hv::StopReason::kHalted);
    INFO("opcode " << static_cast<int>(code[0]));
    CHECK(g.caught().vector == hv::kPageFault);
    CHECK(g.caught().error == 2);
    CHECK(g.caught().rsp == kData + 0x2004);
    CHECK(g.cpu().regs[hv::kRbp] == kData + 0x3000);
    CHECK(peek<uint32_t>(g, kData + 0x2000) == 0);
  }
}

TEST_CASE("a stack pointer that is not canonical raises #SS") {
  for (const Bytes& code : {Bytes{0x50}, Bytes{0x58}, Bytes{0xc9}}) {
    Guest g;
    g.catch_faults();
    g.cpu().regs[hv::kRsp] = g.cpu().regs[hv::kRbp] = 0x8000'0000'0000'0100;
    REQUIRE(g.run(code) == hv::StopReason::kHalted);
    CHECK(g.caught().vector == hv::kStackFault);
    CHECK(g.caught().error == 0);
  }
}

TEST_CASE("POP to memory that cannot be written leaves RSP as it was") {
  Guest g;
  g.catch_faults();
  g.map_page(kData + 0x1000, false);
  g.cpu().regs[hv::kRsp] = kData;
  g.cpu().regs[hv::kRbx] = kData + 0x1800;
  REQUIRE(g.run(Bytes{0x8f, 0x03}) == hv::StopReason::kHalted);
  CHECK(g.caught().vector == hv::kPageFault);
  CHECK(g.caught().rsp == kData);
}

TEST_CASE("POPF at CPL 0 changes IF and IOPL, never VM, and clears RF") {
  Guest g;
  using namespace hv::flag;
  g.cpu().rflags_other |= kRf;
  const uint64_t all = kIf | kIopl | kDf | kNt | kAc | kId | kVm | kRf | kCf | kZf;
  CHECK(pop_flags(g, all) == (kOne | kIf | kIopl | kDf | kNt | kAc | kId | kCf | kZf));
  CHECK(pop_flags(g, 0) == kOne);
}

TEST_CASE("POPF at CPL 3 with IOPL 0 changes neither IF nor IOPL") {
  Guest g;
  using namespace hv::flag;
  for (uint64_t table : {0x1000u, 0x2000u, 0x3000u})  // user pages
    put<uint64_t>(g, table, peek<uint64_t>(g, table) | 4);
  for (uint64_t i = 0; i < 128; ++i)
    put<uint64_t>(g, 0x3000 + 8 * i, peek<uint64_t>(g, 0x3000 + 8 * i) | 4);
  put<uint64_t>(g, 0x4000, peek<uint64_t>(g, 0x4000) | 4);
  hv::set_cpl(g.cpu(), 3);
  g.cpu().rflags_other |= kIf;
  CHECK(pop_flags(g, kIopl | kSf) == (kOne | kIf | kSf));
  g.cpu().rflags_other &= ~kIf;
  CHECK(pop_flags(g, kIf | kIopl | kDf) == (kOne | kDf));
  // IOPL 3 lets IF through, but not IOPL.
  g.cpu().rflags_other |= kIopl;
  CHECK(pop_flags(g, kIf) == (kOne | kIf | kIopl));
}

TEST_CASE("POPF in the middle of a block that changes nothing watched runs on") {
  Guest g;
  g.cpu().regs[hv::kRsp] = kData + 0x800;
  // PUSHF; STC; POPF; SETC AL; HLT
  REQUIRE(g.run(Bytes{0x9c, 0xf9, 0x9d, 0x0f, 0x92, 0xc0}) == hv::StopReason::kHalted);
  CHECK((g.cpu().regs[hv::kRax] & 0xff) == 0);
  CHECK(g.cpu().regs[hv::kRsp] == kData + 0x800);
}

TEST_CASE("32-bit PUSHAD and POPAD keep every register but ESP's popped copy") {
  Guest g(Guest::Kind::k32);
  hv::Cpu& c = g.cpu();
  for (unsigned i = 0; i < 8; ++i) c.regs[i] = 0x1111'1111 * (i + 1);
  c.regs[hv::kRsp] = kData + 0x800;
  REQUIRE(g.run(Bytes{0x60}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRsp] == kData + 0x800 - 32);
  CHECK(peek<uint32_t>(g, kData + 0x800 - 4) == 0x1111'1111);
  CHECK(peek<uint32_t>(g, kData + 0x800 - 20) == kData + 0x800);
  CHECK(peek<uint32_t>(g, kData + 0x800 - 32) == 0x8888'8888);
  c.halted = false;
  for (unsigned i = 0; i < 8; ++i)
    if (i != hv::kRsp) c.regs[i] = 0;
  REQUIRE(g.run(Bytes{0x61}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRsp] == kData + 0x800);
  CHECK(c.regs[hv::kRax] == 0x1111'1111);
  CHECK(c.regs[hv::kRdi] == 0x8888'8888);
}

TEST_CASE("32-bit PUSH of a segment register writes 16 bits and moves ESP by four") {
  Guest g(Guest::Kind::k32);
  hv::Cpu& c = g.cpu();
  put<uint32_t>(g, kData + 0x7fc, 0xffff'ffff);
  c.regs[hv::kRsp] = kData + 0x800;
  REQUIRE(g.run(Bytes{0x1e}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRsp] == kData + 0x7fc);
  CHECK(peek<uint32_t>(g, kData + 0x7fc) == 0xffff'0010);
}

TEST_CASE("POP SS loads the segment, holds interrupts off for one instruction, then lets them in") {
  Guest g(Guest::Kind::k32);
  g.catch_faults();
  hv::Cpu& c = g.cpu();
  put<uint32_t>(g, kData + 0x800, 0x10);
  c.regs[hv::kRsp] = kData + 0x800;
  REQUIRE(g.step(Bytes{0x17}) == hv::StopReason::kStepped);
  CHECK(c.regs[hv::kRsp] == kData + 0x804);
  CHECK(c.seg[hv::kSs].selector == 0x10);
  CHECK(c.interrupt_shadow);
}

TEST_CASE("POP DS of a selector beyond the table faults with its index and leaves ESP") {
  Guest g(Guest::Kind::k32);
  g.catch_faults();
  hv::Cpu& c = g.cpu();
  put<uint32_t>(g, kData + 0x800, 0x78);
  c.regs[hv::kRsp] = kData + 0x800;
  REQUIRE(g.run(Bytes{0x1f}) == hv::StopReason::kHalted);
  CHECK(g.caught().vector == hv::kGeneralProtection);
  CHECK(g.caught().error == 0x78);
  CHECK(c.regs[hv::kRsp] == kData + 0x800 - 16);  // the fault's own frame
}

TEST_CASE("a 16-bit stack wraps SP within 64 KiB and keeps the upper half of ESP") {
  Guest g(Guest::Kind::k32);
  hv::Cpu& c = g.cpu();
  c.seg[hv::kSs].base = kData;
  c.seg[hv::kSs].limit = 0xffff;
  c.seg[hv::kSs].access &= static_cast<uint16_t>(~hv::Segment::kBig);
  g.vcpu().refresh();
  c.regs[hv::kRsp] = 0x4321'0000;
  c.regs[hv::kRax] = 0xcafe'babe;
  REQUIRE(g.run(Bytes{0x50}) == hv::StopReason::kHalted);
  CHECK(c.regs[hv::kRsp] == 0x4321'fffc);
  CHECK(peek<uint32_t>(g, kData + 0xfffc) == 0xcafe'babe);
}

}  // namespace us::test
