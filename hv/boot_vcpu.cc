#include "hv/boot_vcpu.h"

#include "hv/cpu/flags.h"

namespace us::hv {
namespace {

Segment flat(uint16_t selector, uint16_t access) {
  return {.base = 0, .limit = 0xffff'ffff, .access = access, .selector = selector};
}

}  // namespace

void enter_boot_state(SoftVcpu& vcpu, const BootState& state) {
  Cpu& c = vcpu.cpu();
  for (unsigned i = 0; i < 16; ++i) c.regs[i] = state.gpr[i];
  c.rip = state.rip;
  set_arithmetic_flags(c, state.rflags);
  c.rflags_other = (state.rflags & ~flag::kArithmetic) | flag::kOne;
  c.cr0 = state.cr0, c.cr3 = state.cr3, c.cr4 = state.cr4, c.efer = state.efer;
  c.gdtr = {.base = state.gdt_base, .limit = state.gdt_limit};
  c.idtr = {};
  // Accessed code (execute/read) and data (read/write) of ring 0. SDM 3A 3.4.5.1.
  const uint16_t mode_bits = state.long_mode ? Segment::kLong : Segment::kBig;
  c.seg[kCs] = flat(state.code_selector, static_cast<uint16_t>(0x809b | mode_bits));
  for (Seg s : {kEs, kSs, kDs, kFs, kGs}) c.seg[s] = flat(state.data_selector, 0xc093);
  c.tr = {.base = 0, .limit = 0x67, .access = 0x008b, .selector = state.task_selector};
  c.ldtr = {.base = 0, .limit = 0xffff, .access = 0x0082, .selector = 0};
  set_cpl(c, 0);
  vcpu.drop_caches();
  vcpu.refresh();
}

}  // namespace us::hv
