// Interrupt and exception delivery: frames, stacks, error codes, escalation. SDM 3A chapter 6.
#include <doctest/doctest.h>

#include "guest.h"

namespace us::hv::test {
namespace {

TEST_CASE("a page fault in user mode pushes the error code and the whole frame on the TSS stack") {
  Guest g;
  g.enter_long_mode();
  g.enter_user(true);
  g.poke64(kPml4At + 0x2000 + 4 * 8, 0);                             // 8 MiB: not mapped
  g.put(kCodeAt, {0x48, 0x8b, 0x04, 0x25, 0x10, 0x00, 0x80, 0x00});  // mov rax, [0x800010]
  g.cpu().rflags_other |= flag::kIf;
  CHECK(g.run() == StopReason::kHalted);
  const Cpu& c = g.cpu();
  const uint64_t rsp = kStackTop - 0x4000 - 48;
  CHECK(c.rip == handler_of(kPageFault) + 1);
  CHECK(c.regs[kRsp] == rsp);
  CHECK(c.cpl == 0);
  CHECK(c.seg[kCs].selector == kCode64);
  CHECK(c.seg[kSs].selector == 0);
  CHECK(c.cr2 == 0x80'0010);
  CHECK((c.rflags_other & flag::kIf) == 0);
  CHECK(g.peek64(rsp) == 4);
  CHECK(g.peek64(rsp + 8) == kCodeAt);
  CHECK(g.peek64(rsp + 16) == kUserCode64);
  CHECK((g.peek64(rsp + 24) & (flag::kIf | flag::kRf | flag::kOne)) ==
        (flag::kIf | flag::kRf | flag::kOne));
  CHECK(g.peek64(rsp + 32) == kUserStackTop);
  CHECK(g.peek64(rsp + 40) == kUserData);
}

TEST_CASE("an exception at ring 0 aligns the stack to 16 bytes and keeps SS") {
  Guest g;
  g.enter_long_mode();
  g.put(kCodeAt, {0x0f, 0x0b});
  g.cpu().regs[kRsp] = kStackTop - 7;
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().rip == handler_of(kInvalidOpcode) + 1);
  CHECK(g.cpu().regs[kRsp] == kStackTop - 16 - 40);
  CHECK(g.cpu().seg[kSs].selector == kData);
  CHECK(g.peek64(kStackTop - 16 - 16) == kStackTop - 7);
}

TEST_CASE("a gate with IST switches to that stack even at ring 0, a trap gate keeps IF") {
  Guest g;
  g.enter_long_mode();
  g.gate64(kInvalidOpcode, handler_of(6), kCode64, 0, 1, true);
  g.put(kCodeAt, {0x0f, 0x0b});
  g.cpu().rflags_other |= flag::kIf | flag::kTf | flag::kNt;
  g.cpu().rflags_other &= ~flag::kTf;
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().regs[kRsp] == kStackTop - 0x8000 - 40);
  CHECK((g.cpu().rflags_other & flag::kIf) != 0);
  CHECK((g.cpu().rflags_other & flag::kNt) == 0);
}

TEST_CASE("INT n from user mode needs a gate of DPL 3; else #GP names the gate without EXT") {
  Guest g;
  g.enter_long_mode();
  g.enter_user(true);
  g.put(kCodeAt, {0xcd, 0x80});
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().rip == handler_of(kGeneralProtection) + 1);
  CHECK(g.peek64(g.cpu().regs[kRsp]) == (0x80 * 8 | 2));
  CHECK(g.peek64(g.cpu().regs[kRsp] + 8) == kCodeAt);

  Guest h;
  h.enter_long_mode();
  h.enter_user(true);
  h.gate64(0x80, handler_of(0x80), kCode64, 3, 0);
  h.put(kCodeAt, {0xcd, 0x80});
  CHECK(h.run() == StopReason::kHalted);
  CHECK(h.cpu().rip == handler_of(0x80) + 1);
  CHECK(h.peek64(h.cpu().regs[kRsp]) == kCodeAt + 2);
  CHECK((h.peek64(h.cpu().regs[kRsp] + 16) & flag::kRf) == 0);
  CHECK(h.cpu().instructions == 2);
}

TEST_CASE("a missing gate turns an external interrupt into #NP with the EXT bit") {
  Guest g;
  g.enter_long_mode();
  g.poke64(kIdtAt + 0x40 * 16, g.peek64(kIdtAt + 0x40 * 16) & ~(uint64_t{1} << 47));
  deliver_external(g.cpu(), 0x40);
  CHECK(g.cpu().rip == handler_of(kSegmentNotPresent));
  CHECK(g.peek64(g.cpu().regs[kRsp]) == (0x40 * 8 | 3));
}

TEST_CASE("#GP while delivering #GP is a double fault, and one more shuts down") {
  Guest g;
  g.enter_long_mode();
  g.poke64(kIdtAt + kGeneralProtection * 16, 0);
  g.put(kCodeAt, {0xcd, 0x81});
  g.poke64(kIdtAt + 0x81 * 16, 0);
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().rip == handler_of(kDoubleFault) + 1);
  CHECK(g.peek64(g.cpu().regs[kRsp]) == 0);

  Guest h;
  h.enter_long_mode();
  h.poke64(kIdtAt + kGeneralProtection * 16, 0);
  h.poke64(kIdtAt + kDoubleFault * 16, 0);
  h.put(kCodeAt, {0x0f, 0x20, 0xc0, 0x48, 0x31, 0xc0, 0x0f, 0x22, 0xe0});  // cr4 = 0 in long mode
  CHECK(h.run() == StopReason::kShutdown);
  CHECK(h.cpu().shutdown);
}

TEST_CASE("a page fault on the interrupt stack escalates to a double fault on its IST stack") {
  Guest g;
  g.enter_long_mode();
  g.enter_user(true);
  g.poke64(kTssAt + 4, 0x80'1000);
  g.poke64(kPml4At + 0x2000 + 4 * 8, 0);
  g.gate64(kDoubleFault, handler_of(8), kCode64, 0, 1);
  g.put(kCodeAt, {0x8a, 0x04, 0x25, 0x00, 0x00, 0x80, 0x00});  // mov al, [0x800000]
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().rip == handler_of(8) + 1);
  CHECK(g.cpu().regs[kRsp] == kStackTop - 0x8000 - 48);
  CHECK(g.cpu().cr2 == 0x80'1000 - 48);
}

TEST_CASE("a benign exception that meets a fault leads to that fault only") {
  Guest g;
  g.enter_long_mode();
  g.poke64(kIdtAt + kInvalidOpcode * 16, 0);
  g.put(kCodeAt, {0x0f, 0x0b});
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().rip == handler_of(kGeneralProtection) + 1);
  CHECK(g.peek64(g.cpu().regs[kRsp]) == (kInvalidOpcode * 8 | 3));
}

TEST_CASE("an NMI blocks the next one until IRET") {
  Guest g;
  g.enter_long_mode();
  g.put(kCodeAt, {0x90, 0x90, 0x90, 0xf4});
  g.put(handler_of(kNmiVector), {0x48, 0xcf});
  g.vcpu.inject_nmi();
  CHECK(g.vcpu.step() == StopReason::kStepped);  // delivers it
  CHECK(g.cpu().nmi_blocked);
  CHECK(g.cpu().rip == handler_of(kNmiVector));
  CHECK(g.vcpu.step() == StopReason::kStepped);  // the IRETQ
  CHECK(!g.cpu().nmi_blocked);
  CHECK(g.cpu().rip == kCodeAt);
  deliver_external(g.cpu(), kNmiVector);
  CHECK(g.cpu().nmi_blocked);
}

TEST_CASE("in 32-bit mode an interrupt from ring 3 switches to SS0:ESP0 and IRET goes back") {
  Guest g;
  g.enter_protected_mode();
  g.enter_user(false);
  g.gate32(0x30, static_cast<uint32_t>(handler_of(0x30)), kCode32, 3, 0xe);
  g.put(kCodeAt, {0xcd, 0x30, 0xfa});                 // int 0x30; cli (faults at ring 3)
  g.put(handler_of(0x30), {0x8b, 0x04, 0x24, 0xcf});  // mov eax, [esp]; iretd
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().regs[kRax] == kCodeAt + 2);
  CHECK(g.cpu().rip == handler_of(kGeneralProtection) + 1);
  const uint64_t esp = kStackTop - 0x4000 - 24;
  CHECK(g.cpu().regs[kRsp] == esp);
  CHECK(g.peek32(esp) == 0);
  CHECK(g.peek32(esp + 4) == kCodeAt + 2);
  CHECK(g.peek32(esp + 8) == kUserCode32);
  CHECK(g.peek32(esp + 16) == kUserStackTop);
  CHECK(g.peek32(esp + 20) == kUserData);
}

TEST_CASE("a 16-bit gate pushes words, a task gate is refused with #GP naming it") {
  Guest g;
  g.enter_protected_mode();
  g.gate32(0x30, static_cast<uint32_t>(handler_of(0x30)) & 0xffff, kCode32, 0, 6);
  g.put(handler_of(0x30) & 0xffff, {0xf4});
  g.put(kCodeAt, {0xcd, 0x30});
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().regs[kRsp] == kStackTop - 6);

  Guest h;
  h.enter_protected_mode();
  h.gate32(0x30, 0, kTss, 0, 5);
  h.put(kCodeAt, {0xcd, 0x30});
  CHECK(h.run() == StopReason::kHalted);
  CHECK(h.cpu().rip == handler_of(kGeneralProtection) + 1);
  CHECK(h.peek32(h.cpu().regs[kRsp]) == (0x30 * 8 | 2));
}

TEST_CASE("real mode takes its vector from the table at 0 and pushes three words") {
  Guest g;
  Cpu& c = g.cpu();
  for (const Seg s : {kCs, kSs, kDs, kEs}) c.seg[s] = {.limit = 0xffff, .access = 0x93};
  c.seg[kCs].access = 0x9b;
  c.idtr = {.base = 0, .limit = 0x3ff};
  c.regs[kRsp] = 0x8000;
  c.rip = 0x7c00;
  c.rflags_other |= flag::kIf;
  c.exit = Exit::kContinue;
  update_mode(c);
  g.poke32(0x21 * 4, 0x0123'0040);
  g.put(0x7c00, {0xcd, 0x21, 0xf4});
  g.put(0x1230 + 0x40, {0xb8, 0x34, 0x12, 0xcf});  // mov ax, 0x1234; iret
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.regs[kRax] == 0x1234);
  CHECK(c.rip == 0x7c03);
  CHECK(c.regs[kRsp] == 0x8000);
  CHECK((c.rflags_other & flag::kIf) != 0);
  CHECK((g.peek32(0x7ffa) & 0xffff) == 0x7c02);
}

TEST_CASE("TF traps after the next instruction with DR6.BS, and IRET with TF runs one more") {
  Guest g;
  g.enter_long_mode();
  g.put(kCodeAt, {0x90, 0x90, 0xf4});
  g.cpu().rflags_other |= flag::kTf;
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().rip == handler_of(kDebug) + 1);
  CHECK(g.peek64(g.cpu().regs[kRsp]) == kCodeAt + 1);
  CHECK((g.cpu().dr6 & dr6::kBs) != 0);
  CHECK((g.peek64(g.cpu().regs[kRsp] + 16) & flag::kTf) != 0);
  CHECK((g.cpu().rflags_other & flag::kTf) == 0);
}

TEST_CASE(
    "TF traps after each element of a repeated string, with RF in the frame but for the last") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  c.regs[kRcx] = 3, c.regs[kRdi] = 0x70000, c.regs[kRax] = 0x77;
  g.put(kCodeAt, {0xf3, 0xaa, 0xf4});  // rep stosb; hlt
  c.rflags_other |= flag::kTf;
  // Handler: mov rdx, [rsp+16]; bt edx, 16; adc rbx, rbx; iretq. RBX gathers RF of the frames.
  g.put(handler_of(kDebug),
        {0x48, 0x8b, 0x54, 0x24, 0x10, 0x0f, 0xba, 0xe2, 16, 0x48, 0x11, 0xdb, 0x48, 0xcf});
  c.regs[kRbx] = 1;
  constexpr int kSteps = 3 * (1 + 4);  // an element, and the handler
  for (int i = 0; i < kSteps; ++i) CHECK(g.vcpu.step() == StopReason::kStepped);
  CHECK(c.rip == kCodeAt + 2);
  CHECK(c.regs[kRcx] == 0);
  CHECK(c.regs[kRdi] == 0x70003);
  CHECK(c.regs[kRbx] == 0b1110);
}

TEST_CASE("an instruction breakpoint faults before its instruction, RF in the frame passes it") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  c.dr[1] = kCodeAt + 1;
  c.dr7 |= 1 << 2;
  g.put(kCodeAt, {0x90, 0xff, 0xc0, 0xf4});  // nop; inc eax; hlt
  // Handler: or dword [rsp+16], 0x10000 (RF); iretq
  g.put(handler_of(kDebug), {0x81, 0x4c, 0x24, 0x10, 0, 0, 1, 0, 0x48, 0xcf});
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.rip == kCodeAt + 4);
  CHECK(c.regs[kRax] == 1);
  CHECK((c.dr6 & 0xf) == 2);
  CHECK((c.rflags_other & flag::kRf) == 0);
}

// Breakpoint 0 on four bytes at `at`: `on` is DR7.RW.
void watch(Cpu& c, uint64_t at, uint64_t on) {
  c.dr[0] = at;
  c.dr7 = 0x400 | 1 | (on | 0b1100) << 16;
}

TEST_CASE("a data breakpoint traps after the store it names, not after a load or a neighbour") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  watch(c, 0x70004, 1);
  // mov rbx, 0x70000; mov eax, [rbx+4]; mov [rbx], eax; mov [rbx+7], al; nop
  g.put(kCodeAt, {0x48, 0xc7, 0xc3, 0, 0, 7, 0, 0x8b, 0x43, 4, 0x89, 3, 0x88, 0x43, 7, 0x90});
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.rip == handler_of(kDebug) + 1);
  CHECK(g.peek64(c.regs[kRsp]) == kCodeAt + 15);
  CHECK(c.dr6 == 0xffff'0ff1);
}

TEST_CASE("MOV SS from a watched place with TF holds both traps back; an INT n runs first") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  g.poke32(0x70004, kData);
  watch(c, 0x70004, 3);
  // mov ss, [0x70004]; int 0x40
  g.put(kCodeAt, {0x8e, 0x14, 0x25, 4, 0, 7, 0, 0xcd, 0x40});
  c.rflags_other |= flag::kTf;
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.rip == handler_of(kDebug) + 1);
  CHECK(g.peek64(c.regs[kRsp]) == handler_of(0x40));
  CHECK(c.dr6 == 0xffff'0ff1);  // the data breakpoint alone: INT n leaves no single step
}

}  // namespace
}  // namespace us::hv::test
