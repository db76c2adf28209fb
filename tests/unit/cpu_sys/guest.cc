#include "guest.h"

#include "base/check.h"

namespace us::hv::test {

Guest::Guest() : memory(std::move(GuestMemory::create(16 << 20).value())), vcpu(*memory, bus) {
  // HLT at every handler.
  for (unsigned v = 0; v < 256; ++v) put(handler_of(v), {0xf4});
}

void Guest::poke(uint64_t phys, const void* from, size_t size) {
  US_CHECK(memory->write(GuestPhys(phys), ByteSpan(static_cast<const uint8_t*>(from), size)));
}

void Guest::put(uint64_t phys, std::initializer_list<int> bytes) {
  for (const int b : bytes) {
    const auto byte = static_cast<uint8_t>(b);
    poke(phys++, &byte, 1);
  }
}

uint64_t Guest::peek64(uint64_t phys) {
  uint64_t value;
  std::memcpy(&value, memory->host(GuestPhys(phys)), 8);
  return value;
}
uint32_t Guest::peek32(uint64_t phys) { return static_cast<uint32_t>(peek64(phys)); }

void Guest::write_gdt() {
  const uint64_t tss_low = 0x67 | (kTssAt & 0xffffff) << 16 | uint64_t{0x89} << 40;
  const uint64_t entries[] = {0,
                              0x00af'9b00'0000'ffff,  // 0x08: ring 0 code, 64-bit
                              0x00cf'9300'0000'ffff,  // 0x10: ring 0 data
                              0x00cf'fb00'0000'ffff,  // 0x18: ring 3 code, 32-bit
                              0x00cf'f300'0000'ffff,  // 0x20: ring 3 data
                              0x00af'fb00'0000'ffff,  // 0x28: ring 3 code, 64-bit
                              tss_low,
                              0,
                              0x00cf'9b00'0000'ffff};  // 0x40: ring 0 code, 32-bit
  poke(kGdtAt, entries, sizeof entries);
  Cpu& c = cpu();
  c.gdtr = {.base = kGdtAt, .limit = sizeof entries - 1};
}

void Guest::gate64(unsigned vector, uint64_t offset, uint16_t selector, unsigned dpl, unsigned ist,
                   bool trap) {
  const uint64_t access = 0x80 | dpl << 5 | (trap ? 0xf : 0xe);
  poke64(kIdtAt + vector * 16, (offset & 0xffff) | uint64_t{selector} << 16 | uint64_t{ist} << 32 |
                                   access << 40 | (offset & 0xffff'0000) << 32);
  poke64(kIdtAt + vector * 16 + 8, offset >> 32);
}

void Guest::gate32(unsigned vector, uint32_t offset, uint16_t selector, unsigned dpl,
                   unsigned type) {
  const uint64_t access = 0x80 | dpl << 5 | type;
  poke64(kIdtAt + vector * 8, (offset & 0xffff) | uint64_t{selector} << 16 | access << 40 |
                                  (uint64_t{offset} & 0xffff'0000) << 32);
}

void Guest::enter_long_mode() {
  write_gdt();
  for (unsigned v = 0; v < 256; ++v) gate64(v, handler_of(v), kCode64, 0, 0);
  poke64(kPml4At, (kPml4At + 0x1000) | 7);
  for (uint64_t gib = 0; gib < 2; ++gib) {
    poke64(kPml4At + 0x1000 + gib * 8, (kPml4At + 0x2000 + gib * 0x1000) | 7);
    for (uint64_t i = 0; i < 512; ++i)
      poke64(kPml4At + 0x2000 + gib * 0x1000 + i * 8, gib << 30 | i << 21 | 0x87);
  }
  Cpu& c = cpu();
  c.cr0 = cr0::kPe | cr0::kPg | cr0::kEt | cr0::kNe | cr0::kWp;
  c.cr3 = kPml4At;
  c.cr4 = cr4::kPae | cr4::kPge | cr4::kOsfxsr;
  c.efer = efer::kLme | efer::kLma | efer::kNxe | efer::kSce;
  c.idtr = {.base = kIdtAt, .limit = 256 * 16 - 1};
  poke64(kTssAt + 4, kStackTop - 0x4000);     // RSP0
  poke64(kTssAt + 0x24, kStackTop - 0x8000);  // IST1
  c.cpl = 0;
  c.seg[kCs] = flat_segment(kCode64, kFlatCode64);
  for (const Seg s : {kSs, kDs, kEs, kFs, kGs}) c.seg[s] = flat_segment(kData, kFlatData);
  update_mode(c);
  US_CHECK(load_task_register(c, kTss));
  c.regs[kRsp] = kStackTop;
  c.rip = kCodeAt;
  flush_tlb_all(c);
}

void Guest::enter_protected_mode() {
  write_gdt();
  for (unsigned v = 0; v < 256; ++v)
    gate32(v, static_cast<uint32_t>(handler_of(v)), kCode32, 0, 0xe);
  Cpu& c = cpu();
  c.cr0 = cr0::kPe | cr0::kEt | cr0::kNe;
  c.idtr = {.base = kIdtAt, .limit = 256 * 8 - 1};
  poke32(kTssAt + 4, kStackTop - 0x4000);  // ESP0
  poke32(kTssAt + 8, kData);               // SS0
  c.cpl = 0;
  c.seg[kCs] = flat_segment(kCode32, kFlatCode32);
  for (const Seg s : {kSs, kDs, kEs, kFs, kGs}) c.seg[s] = flat_segment(kData, kFlatData);
  update_mode(c);
  US_CHECK(load_task_register(c, kTss));
  c.regs[kRsp] = kStackTop;
  c.rip = kCodeAt;
  flush_tlb_all(c);
}

void Guest::enter_user(bool to_long) {
  Cpu& c = cpu();
  c.seg[kCs] = to_long ? flat_segment(kUserCode64, kFlatCode64 | kFlatDpl3)
                       : flat_segment(kUserCode32, kFlatCode32 | kFlatDpl3);
  for (const Seg s : {kSs, kDs, kEs, kFs, kGs})
    c.seg[s] = flat_segment(kUserData, kFlatData | kFlatDpl3);
  c.regs[kRsp] = kUserStackTop;
  set_cpl(c, 3);
}

StopReason Guest::run(unsigned most) {
  for (unsigned i = 0; i < most; ++i) {
    const StopReason reason = vcpu.run({.alarm = Branches(cpu().branches + 1000)});
    if (reason != StopReason::kAlarm) return reason;
  }
  return StopReason::kAlarm;
}

}  // namespace us::hv::test
