// Segment loads, addresses through segments, far transfers. SDM 3A 3.4, 5.
#include <doctest/doctest.h>

#include "guest.h"

namespace us::hv::test {
namespace {

constexpr uint64_t kTestSlot = 0x38;  // free in the GDT of long mode's guest (upper TSS half: 0x38)

struct Case {
  const char* what;
  uint64_t access;  // descriptor bits 40-47
  unsigned cpl;
  Seg which;
  unsigned rpl;
  int vector;  // -1: loads
};

TEST_CASE("segment loads succeed or raise as the descriptor's type, DPL and presence demand") {
  const Case cases[] = {
      {"data for DS", 0x93, 0, kDs, 0, -1},
      {"readable code for DS", 0x9b, 0, kDs, 0, -1},
      {"execute-only code for DS", 0x99, 0, kDs, 0, kGeneralProtection},
      {"system segment for DS", 0x82, 0, kDs, 0, kGeneralProtection},
      {"absent data for DS", 0x13, 0, kDs, 0, kSegmentNotPresent},
      {"ring 0 data from ring 3", 0x93, 3, kDs, 3, kGeneralProtection},
      {"ring 0 data with RPL 3", 0x93, 0, kDs, 3, kGeneralProtection},
      {"conforming code with RPL 3", 0x9f, 0, kDs, 3, -1},
      {"ring 3 data from ring 3", 0xf3, 3, kEs, 3, -1},
      {"writable data for SS", 0x93, 0, kSs, 0, -1},
      {"read-only data for SS", 0x91, 0, kSs, 0, kGeneralProtection},
      {"ring 3 data for SS at ring 0", 0xf3, 0, kSs, 0, kGeneralProtection},
      {"SS with RPL 3 at ring 0", 0x93, 0, kSs, 3, kGeneralProtection},
      {"absent SS", 0x13, 0, kSs, 0, kStackFault},
  };
  for (const Case& t : cases) {
    INFO(t.what);
    Guest g;
    g.enter_protected_mode();
    Cpu& c = g.cpu();
    g.poke64(kGdtAt + kTestSlot, 0x00c0'0000'1234'0fff | t.access << 40);
    c.cpl = static_cast<uint8_t>(t.cpl);
    update_mode(c);
    const auto selector = static_cast<uint16_t>(kTestSlot | t.rpl);
    const bool ok = load_segment(c, t.which, selector);
    CHECK(ok == (t.vector < 0));
    if (ok) {
      CHECK(c.seg[t.which].selector == selector);
      CHECK(c.seg[t.which].base == 0x1234);
      CHECK(c.seg[t.which].limit == 0xff'ffff);
    } else {
      CHECK(c.fault.vector == t.vector);
      CHECK(c.fault.error == kTestSlot);
    }
  }
}

TEST_CASE("loading a segment sets its accessed bit in memory") {
  Guest g;
  g.enter_protected_mode();
  g.poke64(kGdtAt + kTestSlot, 0x00cf'9200'0000'ffff);
  CHECK(load_segment(g.cpu(), kEs, kTestSlot));
  CHECK((g.peek64(kGdtAt + kTestSlot) >> 40 & 1) == 1);
}

TEST_CASE(
    "null selectors: data segments become unusable, SS only goes null below ring 3 in 64-bit "
    "mode") {
  Guest g;
  g.enter_protected_mode();
  Cpu& c = g.cpu();
  CHECK(load_segment(c, kDs, 0));
  uint64_t linear;
  CHECK(!segment_address(c, kDs, 0, 1, Access::kRead, linear));
  CHECK(c.fault.vector == kGeneralProtection);
  CHECK(!load_segment(c, kSs, 0));

  Guest h;
  h.enter_long_mode();
  CHECK(load_segment(h.cpu(), kSs, 0));
  CHECK(!load_segment(h.cpu(), kSs, 3));
  h.enter_user(true);
  CHECK(!load_segment(h.cpu(), kSs, 3));
  h.cpu().seg[kFs].base = 0x1234;
  CHECK(load_segment(h.cpu(), kFs, 0));
  CHECK(h.cpu().seg[kFs].base == 0);
}

TEST_CASE("a selector past its table, or of a missing LDT, raises #GP naming it") {
  Guest g;
  g.enter_protected_mode();
  CHECK(!load_segment(g.cpu(), kDs, 0x1000));
  CHECK(g.cpu().fault.error == 0x1000);
  CHECK(!load_segment(g.cpu(), kDs, 0x0c));
  CHECK(g.cpu().fault.error == 0x0c);
}

TEST_CASE("limits: the last byte counts, expand-down turns them round, SS raises #SS") {
  Guest g;
  g.enter_protected_mode();
  Cpu& c = g.cpu();
  uint64_t linear;
  c.seg[kDs] = {.base = 0x1000, .limit = 0xff, .access = 0x4093};
  CHECK(segment_address(c, kDs, 0xfc, 4, Access::kRead, linear));
  CHECK(linear == 0x10fc);
  CHECK(!segment_address(c, kDs, 0xfd, 4, Access::kRead, linear));
  CHECK(!segment_address(c, kDs, ~0u, 4, Access::kRead, linear));
  c.seg[kDs].access = 0x4097;  // expand-down
  CHECK(!segment_address(c, kDs, 0xff, 1, Access::kRead, linear));
  CHECK(segment_address(c, kDs, 0x100, 1, Access::kRead, linear));
  c.seg[kDs].access = 0x4091;  // read-only
  CHECK(!segment_address(c, kDs, 0, 1, Access::kWrite, linear));
  c.seg[kSs].limit = 0xff;
  CHECK(!segment_address(c, kSs, 0x100, 1, Access::kRead, linear));
  CHECK(c.fault.vector == kStackFault);
  c.seg[kDs] = {.base = 0xffff'fff0, .limit = 0xffff'ffff, .access = 0x4093};
  CHECK(segment_address(c, kDs, 0x20, 1, Access::kRead, linear));
  CHECK(linear == 0x10);
}

TEST_CASE(
    "in 64-bit mode only FS and GS have a base and a non-canonical address faults by segment") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  c.seg[kDs].base = 0x1000;
  c.seg[kGs].base = 0x2000;
  uint64_t linear;
  CHECK(segment_address(c, kDs, 0x10, 8, Access::kWrite, linear));
  CHECK(linear == 0x10);
  CHECK(segment_address(c, kGs, 0x10, 8, Access::kWrite, linear));
  CHECK(linear == 0x2010);
  CHECK(!segment_address(c, kSs, uint64_t{1} << 47, 8, Access::kWrite, linear));
  CHECK(c.fault.vector == kStackFault);
}

TEST_CASE("LTR marks the descriptor busy and refuses a busy one") {
  Guest g;
  g.enter_long_mode();
  CHECK((g.peek64(kGdtAt + kTss) >> 40 & 0xf) == 0xb);
  CHECK(!load_task_register(g.cpu(), kTss));
  CHECK(g.cpu().fault.error == kTss);
  CHECK(g.cpu().tr.base == kTssAt);
  CHECK(g.cpu().tr.limit == 0x67);
}

TEST_CASE(
    "from reset to long mode: real mode code loads tables, sets CR0, CR3, CR4, EFER and jumps") {
  Guest g;
  g.enter_long_mode();  // for its tables; then back to reset's state
  Cpu& c = g.cpu();
  c.cr0 = 0x6000'0010, c.cr3 = 0, c.cr4 = 0, c.efer = 0;
  for (const Seg s : {kCs, kSs, kDs, kEs, kFs, kGs}) c.seg[s] = {.limit = 0xffff, .access = 0x93};
  c.tr = {}, c.gdtr = {}, c.idtr = {.limit = 0x3ff};
  c.rip = 0x7c00;
  update_mode(c);
  flush_tlb_all(c);
  g.put(0x7d00, {0x47, 0, kGdtAt & 0xff, kGdtAt >> 8, 0, 0});
  g.put(0x7c00, {0x0f, 0x01, 0x16, 0x00, 0x7d,                      // lgdt [0x7d00]
                 0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x01,          // mov eax, cr0; or eax, 1
                 0x0f, 0x22, 0xc0,                                  // mov cr0, eax
                 0x66, 0xea, 0x00, 0x7e, 0x00, 0x00, kCode32, 0});  // jmp far 0x40:0x7e00
  g.put(0x7e00,
        {0xb8, 0x00, 0x00, 0x01, 0x00, 0x0f,    0x22, 0xd8,   // mov eax, kPml4At; mov cr3, eax
         0xb8, 0x20, 0x00, 0x00, 0x00, 0x0f,    0x22, 0xe0,   // cr4 = PAE
         0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f,    0x32,         // ecx = EFER; rdmsr
         0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f,    0x30,         // or eax, LME; wrmsr
         0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00,    0x00, 0x80,   // eax = cr0 | PG
         0x0f, 0x22, 0xc0,                                    // mov cr0, eax
         0xea, 0x00, 0x7f, 0x00, 0x00, kCode64, 0});          // jmp far 0x08:0x7f00
  g.put(0x7f00, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xf4});  // mov rax, imm64; hlt
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.mode.is64());
  CHECK((c.efer & efer::kLma) != 0);
  CHECK(c.regs[kRax] == 0x0807'0605'0403'0201);
  CHECK(c.rip == 0x7f0b);
}

TEST_CASE("a far call and return in 64-bit mode to compatibility code and back") {
  Guest g;
  g.enter_long_mode();
  Cpu& c = g.cpu();
  g.put(kCodeAt, {0x41, 0xb8, 1, 0, 0, 0,                    // mov r8d, 1
                  0xff, 0x1c, 0x25, 0x00, 0x00, 0x11, 0x00,  // call far [0x110000]
                  0xf4});
  g.put(0x110000, {0x00, 0x00, 0x12, 0x00, kCode32, 0});
  g.put(0x120000, {0x40, 0xcb});  // inc eax (a REX prefix in 64-bit mode); retf
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.regs[kRax] == 1);
  CHECK(c.mode.is64());
  CHECK(c.regs[kRsp] == kStackTop);
  CHECK(c.rip == kCodeAt + 14);
}

TEST_CASE("a call gate from ring 3 enters ring 0 on its own stack; RETF goes back") {
  Guest g;
  g.enter_protected_mode();
  g.enter_user(false);
  Cpu& c = g.cpu();
  const uint64_t target = 0x120000;
  // 32-bit call gate, DPL 3, one parameter.
  g.poke64(kGdtAt + kTestSlot, (target & 0xffff) | uint64_t{kCode32} << 16 | uint64_t{1} << 32 |
                                   uint64_t{0xec} << 40 | (target & 0xffff'0000) << 32);
  g.put(kCodeAt, {0x68, 0x78, 0x56, 0x34, 0x12,        // push 0x12345678
                  0x9a, 0, 0, 0, 0, kTestSlot | 3, 0,  // call far gate
                  0xf4});                              // hlt: #GP at ring 3
  g.put(target,
        {0x8b, 0x44, 0x24, 0x08, 0x8c, 0xcb, 0xca, 4, 0});  // eax = [esp+8]; ebx = cs; retf 4
  CHECK(g.run() == StopReason::kHalted);
  CHECK(c.regs[kRax] == 0x1234'5678);
  CHECK((c.regs[kRbx] & 0xffff) == kCode32);
  CHECK(c.rip == handler_of(kGeneralProtection) + 1);
  CHECK(g.peek32(c.regs[kRsp] + 4) == kCodeAt + 12);
  CHECK(g.peek32(c.regs[kRsp] + 16) == kUserStackTop);
}

TEST_CASE("VERR, VERW, LAR and LSL set ZF for visible segments only") {
  Guest g;
  g.enter_protected_mode();
  g.enter_user(false);
  Cpu& c = g.cpu();
  // mov ecx, selector; verr cx; setz al; verw cx; setz ah; lsl ebx, ecx; setz dl; hlt
  const auto probe = [&](uint16_t selector) {
    g.put(kCodeAt, {0xb9,
                    selector & 0xff,
                    selector >> 8,
                    0,
                    0,
                    0x0f,
                    0x00,
                    0xe1,
                    0x0f,
                    0x94,
                    0xc0,
                    0x0f,
                    0x00,
                    0xe9,
                    0x0f,
                    0x94,
                    0xc4,
                    0x0f,
                    0x03,
                    0xd9,
                    0x0f,
                    0x94,
                    0xc2,
                    0xcc});
    g.gate32(3, static_cast<uint32_t>(handler_of(3)), kCode32, 3, 0xe);
    g.enter_user(false);
    c.rip = kCodeAt;
    c.halted = false;
    c.regs[kRax] = c.regs[kRdx] = c.regs[kRbx] = 0;
    CHECK(g.run() == StopReason::kHalted);
    CHECK(c.rip == handler_of(3) + 1);
  };
  probe(kUserData);
  CHECK(c.regs[kRax] == 0x101);
  CHECK(c.regs[kRbx] == 0xffff'ffff);
  probe(kUserCode32);
  CHECK(c.regs[kRax] == 0x001);
  probe(kData);
  CHECK(c.regs[kRax] == 0);
  CHECK(c.regs[kRdx] == 0);
  probe(0);
  CHECK(c.regs[kRax] == 0);
}

}  // namespace
}  // namespace us::hv::test
