// x87 instructions on the software processor: exceptions, stack faults, and the images of the
// state. The arithmetic itself is held against the host's processor in tests/differential.
#include <cstring>
#include <doctest/doctest.h>
#include <initializer_list>
#include <memory>
#include <vector>

#include "hv/core/memory.h"
#include "hv/core/no_bus.h"
#include "hv/cpu/soft_vcpu.h"

namespace us::test {
namespace {

using namespace hv;

constexpr uint32_t kCode = 0x1000, kIdt = 0x2000, kGdt = 0x2800, kHandlers = 0x3000, kData = 0x8000;

// 32-bit protected mode without paging; every exception handler halts.
class Machine {
 public:
  Machine() : memory_(std::move(GuestMemory::create(1 << 20).value())), vcpu_(*memory_, bus_) {
    Cpu& c = cpu();
    c.cr0 = cr0::kPe | cr0::kNe | cr0::kMp;
    c.cr4 = cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kOsxsave;
    c.xcr0 = 3;
    const uint64_t gdt[] = {0, 0x00cf'9b00'0000'ffff, 0x00cf'9300'0000'ffff};
    std::memcpy(host(kGdt), gdt, sizeof gdt);
    for (uint32_t vector = 0; vector < 32; ++vector) {
      const uint32_t at = kHandlers + vector * 16;
      const uint64_t gate = (at & 0xffff) | 8u << 16 | uint64_t{0x8e00} << 32;
      std::memcpy(host(kIdt + vector * 8), &gate, 8);
      *host(at) = 0xf4;
    }
    c.gdtr = {kGdt, sizeof gdt - 1, 0};
    c.idtr = {kIdt, 0xff, 0};
    for (Segment& s : c.seg) s = {0, 0xffff'ffff, 0xc093, 0x10};
    c.seg[kCs] = {0, 0xffff'ffff, 0xc09b, 8};
    c.regs[kRbx] = kData;
  }

  Cpu& cpu() { return vcpu_.cpu(); }
  uint8_t* host(uint32_t at) { return memory_->host(GuestPhys(at)); }
  template <class T>
  T read(uint32_t at) {
    T value;
    std::memcpy(&value, host(at), sizeof value);
    return value;
  }
  template <class T>
  void write(uint32_t at, T value) {
    std::memcpy(host(at), &value, sizeof value);
  }

  // Runs the code to its end. The vector that ended it early, or -1.
  int run(std::vector<uint8_t> code) {
    code.push_back(0xf4);
    (void)memory_->write(GuestPhys(kCode), code);
    Cpu& c = cpu();
    c.rip = kCode;
    c.regs[kRsp] = 0x7000;
    c.halted = false;
    c.rflags_other = 2;
    vcpu_.refresh();
    REQUIRE(vcpu_.run({}) == StopReason::kHalted);
    return c.rip >= kHandlers && c.rip < kIdt + 0x2000 ? static_cast<int>((c.rip - kHandlers) / 16)
                                                       : -1;
  }

 private:
  NoBus bus_;
  std::unique_ptr<GuestMemory> memory_;
  SoftVcpu vcpu_;
};

constexpr uint16_t kIe = 1, kZe = 4, kSf = 0x40, kEs = 0x80, kC1 = 0x200, kBusy = 0x8000;
constexpr uint64_t kIndefinite = 0xc000'0000'0000'0000;

void unmask(Machine& m, uint16_t bits) {
  m.cpu().fpu.control = static_cast<uint16_t>(0x37f & ~bits);
}

}  // namespace

TEST_CASE(
    "an unmasked divide by zero keeps the operands and waits for the next waiting instruction") {
  Machine m;
  unmask(m, kZe);
  // fld1; fldz; fdivp; fnstsw ax
  CHECK(m.run({0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0xdf, 0xe0}) == -1);
  CHECK((m.cpu().regs[kRax] & (kZe | kEs | kBusy)) == (kZe | kEs | kBusy));
  CHECK(m.cpu().fpu.top() == 6);
  CHECK(m.cpu().fpu.opcode == 0x6f9);
  CHECK(m.run({0x9b}) == kX87Error);
  CHECK(m.run({0xd9, 0xe8}) == kX87Error);
  CHECK(m.run({0xdb, 0xe2, 0x9b}) == -1);  // FNCLEX
}

TEST_CASE("TS and EM make x87 instructions raise device-not-available, FWAIT only TS with MP") {
  Machine m;
  const uint64_t plain = m.cpu().cr0;
  m.cpu().cr0 = plain | cr0::kTs;
  CHECK(m.run({0xd9, 0xe8}) == kDeviceNotAvailable);
  CHECK(m.run({0x9b}) == kDeviceNotAvailable);
  m.cpu().cr0 = (plain | cr0::kTs) & ~cr0::kMp;
  CHECK(m.run({0x9b}) == -1);
  m.cpu().cr0 = plain | cr0::kEm;
  CHECK(m.run({0xd9, 0xe8}) == kDeviceNotAvailable);
  CHECK(m.run({0x9b}) == -1);
  CHECK(m.run({0x0f, 0xae, 0x03}) == kDeviceNotAvailable);  // FXSAVE
}

TEST_CASE("a ninth push overflows: masked it leaves the indefinite, unmasked nothing moves") {
  Machine m;
  std::vector<uint8_t> nine;
  for (int i = 0; i < 9; ++i) nine.insert(nine.end(), {0xd9, 0xe8});
  CHECK(m.run(nine) == -1);
  const X87State& f = m.cpu().fpu;
  CHECK((f.status & (kIe | kSf | kC1)) == (kIe | kSf | kC1));
  CHECK(f.reg[f.top()].mantissa == kIndefinite);
  CHECK(m.run({0xdb, 0xe3}) == -1);  // FNINIT
  unmask(m, kIe);
  CHECK(m.run(nine) == -1);
  CHECK(f.top() == 0);
  CHECK(f.reg[0].mantissa == 1ull << 63);
  CHECK((f.status & kEs) != 0);
}

TEST_CASE("storing an empty register gives each format's indefinite with C1 clear") {
  Machine m;
  CHECK(m.run({0xdb, 0x1b, 0xdd, 0x5b, 0x08, 0xdf, 0x73, 0x10}) == -1);  // FISTP, FSTP, FBSTP
  CHECK(m.read<uint32_t>(kData) == 0x8000'0000);
  CHECK(m.read<uint64_t>(kData + 8) == 0xfff8'0000'0000'0000);
  CHECK(m.read<uint64_t>(kData + 16) == 0xc000'0000'0000'0000);
  CHECK(m.read<uint16_t>(kData + 24) == 0xffff);
  CHECK((m.cpu().fpu.status & (kIe | kSf | kC1)) == (kIe | kSf));
}

TEST_CASE("FNSAVE and FRSTOR bring all of the state back, in both widths") {
  for (const bool narrow : {false, true}) {
    Machine m;
    // fld1; fldpi; fldz; fldcw [ebx+128]
    m.write<uint16_t>(kData + 128, 0xe7f);
    CHECK(m.run({0xd9, 0xe8, 0xd9, 0xeb, 0xd9, 0xee, 0xd9, 0xab, 128, 0, 0, 0}) == -1);
    const X87State before = m.cpu().fpu;
    const std::vector<uint8_t> save =
        narrow ? std::vector<uint8_t>{0x66, 0xdd, 0x33} : std::vector<uint8_t>{0xdd, 0x33};
    CHECK(m.run(save) == -1);
    CHECK(m.cpu().fpu.valid == 0);
    CHECK(m.cpu().fpu.control == 0x37f);
    // FLDZ is tagged zero, the others valid, the rest empty.
    CHECK(m.read<uint16_t>(kData + (narrow ? 4 : 8)) == 0x07ff);
    for (auto& r : m.cpu().fpu.reg) r = {};
    const std::vector<uint8_t> restore =
        narrow ? std::vector<uint8_t>{0x66, 0xdd, 0x23} : std::vector<uint8_t>{0xdd, 0x23};
    CHECK(m.run(restore) == -1);
    CHECK(std::memcmp(before.reg, m.cpu().fpu.reg, sizeof before.reg) == 0);
    CHECK(m.cpu().fpu.control == before.control);
    CHECK(m.cpu().fpu.status == before.status);
    CHECK(m.cpu().fpu.valid == before.valid);
    CHECK(m.cpu().fpu.ip == before.ip);
  }
}

TEST_CASE("FXSAVE and FXRSTOR bring x87, XMM and MXCSR back; misaligned is #GP") {
  Machine m;
  m.cpu().mxcsr = 0x1fa5;
  m.cpu().xmm[7].q[0] = 0x0123'4567'89ab'cdef;
  CHECK(m.run({0xd9, 0xeb, 0x0f, 0xae, 0x03}) == -1);
  CHECK(m.read<uint8_t>(kData + 4) == 0x80);  // physical register 7
  CHECK(m.read<uint64_t>(kData + 32) == 0xc90f'daa2'2168'c235);
  m.cpu().mxcsr = 0x1f80;
  m.cpu().xmm[7] = {};
  CHECK(m.run({0xdb, 0xe3, 0x0f, 0xae, 0x0b}) == -1);
  CHECK(m.cpu().fpu.valid == 0x80);
  CHECK(m.cpu().xmm[7].q[0] == 0x0123'4567'89ab'cdef);
  CHECK(m.cpu().mxcsr == 0x1fa5);
  CHECK(m.run({0x0f, 0xae, 0x43, 0x08}) == kGeneralProtection);
  m.write<uint32_t>(kData + 24, 0x10000);  // a reserved MXCSR bit
  CHECK(m.run({0x0f, 0xae, 0x0b}) == kGeneralProtection);
}

TEST_CASE(
    "XSAVE writes the requested components; XRSTOR checks the header and initialises the rest") {
  Machine m;
  m.cpu().regs[kRax] = 3;
  m.cpu().regs[kRdx] = 0;
  m.cpu().xmm[2].q[1] = 77;
  CHECK(m.run({0xd9, 0xe8, 0x0f, 0xae, 0x23}) == -1);
  CHECK(m.read<uint64_t>(kData + 512) == 3);
  m.write<uint64_t>(kData + 512, 1);  // SSE in its initial state
  CHECK(m.run({0x0f, 0xae, 0x2b}) == -1);
  CHECK(m.cpu().xmm[2].q[1] == 0);
  CHECK(m.cpu().fpu.valid == 0x80);
  m.write<uint64_t>(kData + 512, 4);  // a component that is not enabled
  CHECK(m.run({0x0f, 0xae, 0x2b}) == kGeneralProtection);
  m.write<uint64_t>(kData + 512, 1);
  m.write<uint64_t>(kData + 528, 1);  // reserved
  CHECK(m.run({0x0f, 0xae, 0x2b}) == kGeneralProtection);
  m.cpu().cr4 &= ~cr4::kOsxsave;
  CHECK(m.run({0x0f, 0xae, 0x23}) == kInvalidOpcode);
}

TEST_CASE("FLDCW with a pending flag unmasked raises at the next waiting instruction") {
  Machine m;
  m.write<uint16_t>(kData, 0x37b);  // ZE unmasked
  CHECK(m.run({0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0xd9, 0x2b, 0xdf, 0xe0}) == -1);
  CHECK((m.cpu().regs[kRax] & kEs) != 0);
  CHECK(m.run({0x9b}) == kX87Error);
}

TEST_CASE("FSIN of an operand beyond 2^63 sets C2 and leaves it alone") {
  Machine m;
  m.write<uint64_t>(kData, 0x43f0'0000'0000'0000);  // 2^64
  CHECK(m.run({0xdd, 0x03, 0xd9, 0xfe, 0xdf, 0xe0}) == -1);
  CHECK((m.cpu().regs[kRax] & 0x400) != 0);
  CHECK(m.cpu().fpu.reg[7].exponent == 0x3fff + 64);
}

}  // namespace us::test
