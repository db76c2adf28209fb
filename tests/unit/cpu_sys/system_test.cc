// System instructions: system calls, returns, control registers, MSRs, CPUID, I/O.
#include <doctest/doctest.h>
#include <string>

#include "guest.h"
#include "hv/core/clock.h"

namespace us::hv::test {
namespace {

constexpr uint64_t kStar = uint64_t{kCode64} << 32 | uint64_t{0x1b} << 48;

TEST_CASE("SYSCALL saves RIP and RFLAGS, masks flags and enters ring 0; SYSRET goes back") {
  Guest g;
  g.enter_long_mode();
  g.enter_user(true);
  Cpu& c = g.cpu();
  c.msr.star = kStar;
  c.msr.lstar = 0x120000;
  c.msr.sfmask = flag::kIf | flag::kCf | flag::kDf;
  c.rflags_other |= flag::kIf | flag::kDf;
  g.put(kCodeAt, {0xf9, 0x0f, 0x05, 0xcc});                           // stc; syscall; int3
  g.put(0x120000, {0x0f, 0x92, 0xc0, 0x8c, 0xcb, 0x48, 0x0f, 0x07});  // setc al; ebx = cs; sysretq
  g.gate64(3, handler_of(3), kCode64, 3, 0);
  CHECK(g.run() == StopReason::kHalted);
  CHECK((c.regs[kRax] & 0xff) == 0);
  CHECK((c.regs[kRbx] & 0xffff) == kCode64);
  CHECK(c.regs[kRcx] == kCodeAt + 3);
  CHECK((c.regs[kR11] & (flag::kIf | flag::kCf | flag::kDf)) ==
        (flag::kIf | flag::kCf | flag::kDf));
  const uint64_t frame = c.regs[kRsp];
  CHECK(g.peek64(frame) == kCodeAt + 4);
  CHECK(g.peek64(frame + 8) == kUserCode64);
  CHECK((g.peek64(frame + 16) & (flag::kIf | flag::kCf | flag::kDf)) ==
        (flag::kIf | flag::kCf | flag::kDf));
  CHECK(g.peek64(frame + 32) == kUserData);
}

TEST_CASE("SYSRET to a non-canonical RCX raises #GP while still at ring 0") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  c.msr.star = kStar;
  c.regs[kRcx] = uint64_t{1} << 47;
  g.put(kCodeAt, {0x48, 0x0f, 0x07});
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.rip == handler_of(kGeneralProtection) + 1);
  CHECK(g.peek64(c.regs[kRsp] + 16) == kCode64);
}

TEST_CASE("privileged instructions raise #GP(0) at ring 3, and #UD comes first where it must") {
  struct Case {
    std::initializer_list<int> code;
    unsigned vector;
  };
  const Case cases[] = {
      {{0xf4}, 13},                         // hlt
      {{0xfa}, 13},                         // cli
      {{0xfb}, 13},                         // sti
      {{0x0f, 0x20, 0xc0}, 13},             // mov rax, cr0
      {{0x0f, 0x22, 0xd8}, 13},             // mov cr3, rax
      {{0x0f, 0x21, 0xf8}, 13},             // mov rax, dr7
      {{0x0f, 0x30}, 13},                   // wrmsr
      {{0x0f, 0x32}, 13},                   // rdmsr
      {{0x0f, 0x06}, 13},                   // clts
      {{0x0f, 0x01, 0x38}, 13},             // invlpg [rax]
      {{0x0f, 0x09}, 13},                   // wbinvd
      {{0x0f, 0x01, 0x10}, 13},             // lgdt [rax]
      {{0x0f, 0x00, 0xd8}, 13},             // ltr ax
      {{0x0f, 0x01, 0xf8}, 13},             // swapgs
      {{0x0f, 0x01, 0xcb}, 6},              // stac
      {{0x0f, 0x33}, 13},                   // rdpmc
      {{0x48, 0x0f, 0x07}, 13},             // sysret
      {{0xe4, 0x60}, 13},                   // in al, 0x60
      {{0x0f, 0x01, 0xc1}, 6},              // vmcall
      {{0x0f, 0x01, 0xc8}, 6},              // monitor
      {{0x0f, 0xaa}, 6},                    // rsm
      {{0xf3, 0x48, 0x0f, 0xae, 0xc0}, 6},  // rdfsbase with CR4.FSGSBASE clear
      {{0x0f, 0x01, 0xd0}, 6},              // xgetbv with CR4.OSXSAVE clear
  };
  for (const Case& t : cases) {
    Guest g;
    g.enter_long_mode();
    g.enter_user(true);
    g.cpu().regs[kRax] = 0x5000;
    g.put(kCodeAt, t.code);
    INFO("first bytes ", *t.code.begin(), " ", *(t.code.begin() + t.code.size() - 1));
    CHECK(g.run() == StopReason::kHalted);
    CHECK(g.cpu().rip == handler_of(t.vector) + 1);
    CHECK(g.cpu().cpl == 0);
  }
}

TEST_CASE("MOV to control registers refuses reserved and contradictory values") {
  struct Case {
    int modrm;
    uint64_t value;
    bool ok;
  };
  const Case cases[] = {{0xc0, 0x8000'0033, true},
                        {0xc0, 0x8000'0032, false},
                        {0xc0, 0xa000'0033, false},
                        {0xc0, 0x1'8000'0033, false},
                        {0xc0, 0x0000'0033, false},
                        {0xd8, kPml4At, true},
                        {0xd8, kPml4At | 1ull << 40, false},
                        {0xe0, cr4::kPae, true},
                        {0xe0, 0, false},
                        {0xe0, cr4::kPae | cr4::kPcide, false},
                        {0xe0, cr4::kPae | cr4::kTsd | cr4::kUmip, true},
                        {0xe0, cr4::kPae | 1ull << 12, false}};
  for (const Case& t : cases) {
    INFO("modrm ", t.modrm, " value ", t.value);
    Guest g;
    g.enter_long_mode();
    g.put(kCodeAt, {0x0f, 0x22, t.modrm, 0xf4});
    g.cpu().regs[kRax] = t.value;
    CHECK(g.run() == StopReason::kHalted);
    CHECK(g.cpu().rip == (t.ok ? kCodeAt + 4 : handler_of(13) + 1));
  }
}

TEST_CASE("STI holds interrupts off for one instruction, only if they were off before") {
  Guest g;
  g.enter_long_mode();
  g.put(kCodeAt, {0xfb, 0x90, 0xfb, 0x90, 0xf4});
  g.vcpu.step();
  CHECK(!g.vcpu.interruptible());
  g.vcpu.step();
  CHECK(g.vcpu.interruptible());
  g.vcpu.step();
  CHECK(g.vcpu.interruptible());
}

TEST_CASE("MOV SS holds interrupts off for one instruction") {
  Guest g;
  g.enter_long_mode();
  g.cpu().rflags_other |= flag::kIf;
  g.cpu().regs[kRax] = kData;
  g.put(kCodeAt, {0x8e, 0xd0, 0x90, 0xf4});
  g.vcpu.step();
  CHECK(!g.vcpu.interruptible());
  g.vcpu.step();
  CHECK(g.vcpu.interruptible());
}

TEST_CASE("IRETQ refuses bad frames with #GP and changes nothing") {
  const auto attempt = [](uint64_t cs, uint64_t ss, uint64_t rip) {
    Guest g;
    g.enter_long_mode();
    g.put(kCodeAt, {0x48, 0xcf});
    const uint64_t frame[] = {rip, cs, 2, kUserStackTop, ss};
    g.poke(kStackTop - 40, frame, sizeof frame);
    g.cpu().regs[kRsp] = kStackTop - 40;
    CHECK(g.run() == StopReason::kHalted);
    return g.cpu().rip;
  };
  const uint64_t gp = handler_of(13) + 1;
  CHECK(attempt(kCode64, kData, handler_of(0x77)) == handler_of(0x77) + 1);
  CHECK(attempt(kCode64, 0, handler_of(0x77)) == handler_of(0x77) + 1);
  CHECK(attempt(0, kData, handler_of(0x77)) == gp);
  CHECK(attempt(kUserCode64, kData, handler_of(0x77)) == gp);
  CHECK(attempt(kUserCode64, 3, handler_of(0x77)) == gp);
  CHECK(attempt(kData, kData, handler_of(0x77)) == gp);
  CHECK(attempt(kCode64 | 3, kUserData, handler_of(0x77)) == gp);
  CHECK(attempt(kCode64, kData, uint64_t{1} << 47) == gp);
}

TEST_CASE("IRETQ to ring 3 drops segments of inner rings") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  g.put(kCodeAt, {0x48, 0xcf});
  g.put(0x120000, {0xcc});
  g.gate64(3, handler_of(3), kCode64, 3, 0);
  const uint64_t frame[] = {0x120000, kUserCode64, 2 | flag::kIf, kUserStackTop, kUserData};
  g.poke(kStackTop - 40, frame, sizeof frame);
  c.regs[kRsp] = kStackTop - 40;
  c.seg[kEs] = flat_segment(kUserData, kFlatData | kFlatDpl3);
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.rip == handler_of(3) + 1);
  CHECK(c.seg[kDs].selector == 0);
  CHECK(!c.seg[kDs].usable());
  CHECK(c.seg[kEs].selector == kUserData);
}

TEST_CASE("port I/O at ring 3 follows the TSS bitmap bit by bit") {
  Guest g;
  g.enter_long_mode();
  g.enter_user(true);
  Cpu& c = g.cpu();
  c.tr.limit = 0x2067;
  const uint16_t map = 0x68;
  g.poke(kTssAt + 102, &map, 2);
  std::vector<uint8_t> bits(0x2000, 0);
  bits[0x3f8 / 8] = 0x02;  // port 0x3f9
  g.poke(kTssAt + map, bits.data(), bits.size());
  CHECK(io_permitted(c, 0x3f8, 1));
  CHECK(!io_permitted(c, 0x3f9, 1));
  CHECK(!io_permitted(c, 0x3f8, 2));
  CHECK(io_permitted(c, 0x3fa, 4));
  c.tr.limit = map + 0x10;
  CHECK(!io_permitted(c, 0x100, 1));
  c.rflags_other |= flag::kIopl;
  CHECK(io_permitted(c, 0x3f9, 1));
}

TEST_CASE("IN, OUT, INS and OUTS reach the bus with their size; REP counts down") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  g.bus.answer = 0x99aa'bbcc;
  c.regs[kRax] = ~uint64_t{0};
  g.put(kCodeAt, {0xe4, 0x60, 0x66, 0xed, 0xee, 0xed,  // in al,0x60; in ax,dx; out dx,al; in eax,dx
                  0xf3, 0x6e, 0xf3, 0x66, 0x6d, 0xf4});  // rep outsb; rep insw; hlt
  c.regs[kRdx] = 0x1f0;
  c.regs[kRcx] = 3;
  c.regs[kRsi] = 0x5000;
  c.regs[kRdi] = 0x6000;
  g.put(0x5000, {1, 2, 3});
  CHECK(g.run() == StopReason::kHalted);
  REQUIRE(g.bus.calls.size() == 7);
  CHECK(g.bus.calls[0].address == 0x60);
  CHECK(g.bus.calls[1].size == 2);
  CHECK(g.bus.calls[2].value == 0xcc);
  CHECK(g.bus.calls[3].size == 4);
  CHECK(g.bus.calls[6].value == 3);
  CHECK(c.regs[kRax] == 0x99aa'bbcc);
  CHECK(c.regs[kRcx] == 0);
  CHECK(c.regs[kRsi] == 0x5003);
}

TEST_CASE("REP INSW stores each word and stops precisely at a page that is not there") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  g.poke64(kPml4At + 0x2000 + 4 * 8, 0);  // 8 MiB: not mapped
  g.put(kCodeAt, {0xf3, 0x66, 0x6d, 0xf4});
  c.regs[kRcx] = 5;
  c.regs[kRdi] = 0x80'0000 - 4;
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.rip == handler_of(kPageFault) + 1);
  CHECK(c.cr2 == 0x80'0000);
  CHECK(c.regs[kRcx] == 3);
  CHECK(c.regs[kRdi] == 0x80'0000);
  CHECK(g.bus.calls.size() == 2);
  CHECK(g.peek32(0x7f'fffc) == 0x7788'7788);
}

TEST_CASE(
    "RDTSC reads the bus's clock at the branches retired so far, RDTSCP adds the aux register") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  c.msr.tsc_aux = 7;
  c.branches = 41;
  g.put(kCodeAt, {0x85, 0xc0, 0x75, 0x00, 0x0f, 0x01, 0xf9, 0xf4});  // test; jnz +0; rdtscp; hlt
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.regs[kRax] == 1042);
  CHECK(c.regs[kRdx] == 0);
  CHECK(c.regs[kRcx] == 7);
}

TEST_CASE("WRMSR of an APIC register is seen by the bus and lets the machine look right after it") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  c.regs[kRcx] = 0x80b;
  g.put(kCodeAt, {0x0f, 0x30, 0x90, 0xf4});
  g.bus.attention = false;
  CHECK(g.run() == StopReason::kHalted);
  REQUIRE(g.bus.calls.size() == 1);
  CHECK(g.bus.calls[0].kind == 'W');
  CHECK(g.bus.calls[0].address == 0x80b);
}

TEST_CASE("MSRs check their values and unknown ones raise #GP") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  uint64_t v;
  CHECK(write_msr(c, 0xc000'0082, 0xffff'8000'0000'0000));
  CHECK(!write_msr(c, 0xc000'0082, 0x8000'0000'0000));
  CHECK(!write_msr(c, 0xc000'0100, 0x8000'0000'0000));
  CHECK(!write_msr(c, 0x277, 2));
  CHECK(write_msr(c, 0x277, 0x0007'0406'0007'0406));
  CHECK(!write_msr(c, 0xc000'0080, 1 << 1));
  CHECK(!write_msr(c, 0xc000'0080, 0));  // LME with paging on
  CHECK(!write_msr(c, 0x48, 8));
  CHECK(!read_msr(c, 0xdead, v));
  CHECK(c.fault.vector == kGeneralProtection);
  CHECK(!write_msr(c, 0x10a, 0));
  CHECK(read_msr(c, 0x10a, v));
  CHECK((v & 1) == 1);
  CHECK(!read_msr(c, 0x8ff, v));
  CHECK(read_msr(c, 0x26f, v));
  CHECK(write_msr(c, 0x26f, 0x0606'0606'0606'0606));
  CHECK(!write_msr(c, 0x26f, 0x0202'0606'0606'0606));
}

TEST_CASE("SWAPGS exchanges the bases, WRGSBASE refuses a non-canonical one") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  c.cr4 |= cr4::kFsgsbase;
  c.seg[kGs].base = 0x1000;
  c.msr.kernel_gs_base = 0x2000;
  c.regs[kRax] = uint64_t{1} << 47;
  g.put(kCodeAt, {0x0f, 0x01, 0xf8, 0xf3, 0x48, 0x0f, 0xae, 0xcb,  // swapgs; rdgsbase rbx
                  0xf3, 0x48, 0x0f, 0xae, 0xd8});                  // wrgsbase rax
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.regs[kRbx] == 0x2000);
  CHECK(c.msr.kernel_gs_base == 0x1000);
  CHECK(c.rip == handler_of(13) + 1);
}

TEST_CASE("with CR4.UMIP user mode may not store descriptor tables, without it may") {
  for (const bool umip : {false, true}) {
    Guest g;
    g.enter_long_mode();
    g.enter_user(true);
    g.cpu().cr4 |= umip ? cr4::kUmip : 0;
    g.gate64(3, handler_of(3), kCode64, 3, 0);
    g.put(kCodeAt, {0x0f, 0x01, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00, 0xcc});  // sgdt [0x5000]; int3
    CHECK(g.run() == StopReason::kHalted);
    CHECK(g.cpu().rip == handler_of(umip ? 13 : 3) + 1);
    if (!umip) CHECK(g.peek64(0x5002) == kGdtAt);
  }
}

TEST_CASE("debug registers: aliases obey CR4.DE, fixed bits stay, GD guards with #DB") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  c.regs[kRax] = 0;
  g.put(kCodeAt, {0x0f, 0x23, 0xf0, 0x0f, 0x21, 0xe3, 0xf4});  // mov dr6, rax; mov rbx, dr4; hlt
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.regs[kRbx] == 0xffff'0ff0);
  c.halted = false;
  c.rip = kCodeAt + 3;
  c.cr4 |= cr4::kDe;
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.rip == handler_of(6) + 1);
  c.halted = false;
  c.rip = kCodeAt;
  c.dr7 |= 1 << 13;
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.rip == handler_of(1) + 1);
  CHECK((c.dr6 & dr6::kBd) != 0);
  CHECK((c.dr7 & (1 << 13)) == 0);
}

struct Leaf {
  uint32_t a, b, c, d;
};
Leaf leaf(const Cpu& c, uint32_t number, uint32_t sub = 0) {
  uint32_t out[4];
  cpuid(c, number, sub, out);
  return {out[0], out[1], out[2], out[3]};
}

TEST_CASE("CPUID names an x86-64-v2 processor and nothing newer") {
  Guest g;
  Cpu& c = g.cpu();
  const Leaf l0 = leaf(c, 0), l1 = leaf(c, 1), l7 = leaf(c, 7), e1 = leaf(c, 0x8000'0001);
  CHECK(l0.b == 0x756e'6547);
  CHECK(l0.d == 0x4965'6e69);
  CHECK(l0.c == 0x6c65'746e);
  for (const unsigned bit : {0, 9, 13, 19, 20, 21, 23, 24, 26, 31}) CHECK((l1.c >> bit & 1) == 1);
  for (const unsigned bit : {1, 3, 12, 17, 25, 27, 28, 29, 30}) CHECK((l1.c >> bit & 1) == 0);
  for (const unsigned bit : {3, 5, 8, 16, 18, 19}) CHECK((l7.b >> bit & 1) == 0);
  for (const unsigned bit : {20, 29, 11}) CHECK((e1.d >> bit & 1) == 1);
  CHECK((e1.c & 1) == 1);
  c.cr4 |= cr4::kOsxsave;
  CHECK((leaf(c, 1).c >> 27 & 1) == 1);
  // Who chooses code by the model must not find one that has AVX.
  CHECK((l1.a & 0x0fff'0ff0) == 0x0002'06c0);
}

TEST_CASE("CPUID shows the local APIC only while IA32_APIC_BASE enables it") {
  Guest g;
  g.bus.answer = 0xfee0'0900;
  CHECK((leaf(g.cpu(), 1).d >> 9 & 1) == 1);
  g.bus.answer = 0xfee0'0100;
  CHECK((leaf(g.cpu(), 1).d >> 9 & 1) == 0);
}

TEST_CASE("CPUID's numbers agree with the clock, the address widths and the XSAVE area") {
  Guest g;
  const Cpu& c = g.cpu();
  const Leaf tsc = leaf(c, 0x15);
  CHECK(uint64_t{tsc.c} * tsc.b / tsc.a == kTscHz);
  CHECK((leaf(c, 0x8000'0008).a & 0xff) == kPhysicalBits);
  CHECK((leaf(c, 0x8000'0007).d >> 8 & 1) == 1);
  CHECK(leaf(c, 0xd).a == 3);
  CHECK(leaf(c, 0xd).c == 576);
  CHECK(leaf(c, 0xb, 1).b == 1);
  CHECK((leaf(c, 4, 4).a & 0x1f) == 0);
  std::string brand;
  for (uint32_t n = 0x8000'0002; n <= 0x8000'0004; ++n) {
    const Leaf l = leaf(c, n);
    for (const uint32_t word : {l.a, l.b, l.c, l.d})
      brand.append(reinterpret_cast<const char*>(&word), 4);
  }
  CHECK(std::string(brand.c_str()) == "Understudy Virtual CPU");
  CHECK(leaf(c, 0x1234).a == leaf(c, 0x16).a);
}

TEST_CASE(
    "registers set while the guest stands behind a branch lead no other block to that place") {
  Guest g;
  g.enter_long_mode();
  // A loop of three turns, HLT; and elsewhere a marker in RAX, HLT.
  g.put(kCodeAt, {0xff, 0xc9, 0x75, 0xfc, 0xf4});
  g.put(kCodeAt + 0x800, {0xb8, 0x2a, 0, 0, 0, 0xf4});
  g.cpu().rip = kCodeAt;
  g.cpu().regs[kRcx] = 3;
  REQUIRE(g.vcpu.run({.alarm = Branches(g.cpu().branches + 1)}) == StopReason::kAlarm);
  const Registers in_loop = g.vcpu.registers();
  Registers elsewhere = in_loop;
  elsewhere.rip = kCodeAt + 0x800;
  g.vcpu.set_registers(elsewhere);
  REQUIRE(g.run() == StopReason::kHalted);
  CHECK(g.cpu().regs[kRax] == 42);

  g.cpu().halted = false;
  g.vcpu.set_registers(in_loop);
  REQUIRE(g.run() == StopReason::kHalted);
  CHECK(g.cpu().rip == kCodeAt + 5);
  CHECK(g.cpu().regs[kRcx] == 0);
  CHECK(g.cpu().regs[kRax] == in_loop.gpr[kRax]);
}

TEST_CASE("RF is kept like a processor's for who asks, and not left behind for who does not") {
  for (const bool asked : {false, true}) {
    CAPTURE(asked);
    Guest g;
    g.enter_long_mode();
    g.cpu().intercepts.resume_flag = asked;
    g.put(kCodeAt, {0x48, 0xcf, 0x90, 0xf4});  // IRETQ; NOP; HLT
    const uint64_t frame[] = {kCodeAt + 2, kCode64, 0x10002, kStackTop, kData};
    g.poke(kStackTop - sizeof frame, frame, sizeof frame);
    g.cpu().rip = kCodeAt;
    g.cpu().regs[kRsp] = kStackTop - sizeof frame;
    g.vcpu.step();
    REQUIRE(g.cpu().rip == kCodeAt + 2);
    CHECK(((g.cpu().rflags_other & flag::kRf) != 0) == asked);
    g.vcpu.step();
    REQUIRE(g.cpu().rip == kCodeAt + 3);
    CHECK((g.cpu().rflags_other & flag::kRf) == 0);
  }
}

}  // namespace
}  // namespace us::hv::test
