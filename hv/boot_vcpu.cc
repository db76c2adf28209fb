#include "hv/boot_vcpu.h"

#include "hv/cpu/state_bytes.h"

namespace us::hv {
namespace {

Segment flat(uint16_t selector, uint16_t access) {
  return {.base = 0, .limit = 0xffff'ffff, .access = access, .selector = selector};
}

CpuState boot_cpu_state(const BootState& state) {
  CpuState c;
  for (unsigned i = 0; i < 16; ++i) c.regs[i] = state.gpr[i];
  c.rip = state.rip;
  c.cr0 = state.cr0, c.cr3 = state.cr3, c.cr4 = state.cr4, c.efer = state.efer;
  c.gdtr = {.base = state.gdt_base, .limit = state.gdt_limit};
  c.idtr = {};
  // Accessed code (execute/read) and data (read/write) of ring 0. SDM 3A 3.4.5.1.
  const uint16_t mode_bits = state.long_mode ? Segment::kLong : Segment::kBig;
  c.seg[kCs] = flat(state.code_selector, static_cast<uint16_t>(0x809b | mode_bits));
  for (Seg s : {kEs, kSs, kDs, kFs, kGs}) c.seg[s] = flat(state.data_selector, 0xc093);
  c.tr = {.base = 0, .limit = 0x67, .access = 0x008b, .selector = state.task_selector};
  c.ldtr = {.base = 0, .limit = 0xffff, .access = 0x0082, .selector = 0};
  return c;
}

}  // namespace

void enter_boot_state(Vcpu& vcpu, const BootState& state) {
  CpuState c = boot_cpu_state(state);
  c.rflags_other = state.rflags | flag::kOne;
  ByteWriter out;
  put_state(c, out);
  ByteReader in(out.bytes());
  US_CHECK(vcpu.load(in).ok(), "a boot state that no processor has");
}

}  // namespace us::hv
