// Fast system calls, FS and GS bases, software interrupts. SDM 2B, SDM 3A 5.8.7, 5.8.8.
#include <utility>

#include "hv/cpu/debug.h"
#include "hv/cpu/system_instructions.h"
#include "hv/cpu/trace.h"

namespace us::hv {
namespace {

void enter_flat(Cpu& c, uint16_t cs, uint16_t cs_access, uint16_t ss, uint8_t cpl) {
  const auto dpl = static_cast<uint16_t>(cpl == 3 ? kFlatDpl3 : 0);
  c.seg[kCs] = flat_segment(cs, cs_access | dpl);
  c.seg[kSs] = flat_segment(ss, kFlatData | dpl);
  set_cpl(c, cpl);
  trace_far(c);
}

bool bases_allowed(Cpu& c) { return (c.cr4 & cr4::kFsgsbase) != 0 || raise(c, kInvalidOpcode); }

bool read_base(Cpu& c, const Op& op, Seg which) {
  if (!bases_allowed(c)) return false;
  const uint64_t base = c.seg[which].base;
  c.regs[op.dst] = op.extra == 8 ? base : static_cast<uint32_t>(base);
  return true;
}

bool write_base(Cpu& c, const Op& op, Seg which) {
  if (!bases_allowed(c)) return false;
  const uint64_t base = op.extra == 8 ? c.regs[op.dst] : static_cast<uint32_t>(c.regs[op.dst]);
  if (!canonical(base)) return raise(c, kGeneralProtection, 0);
  c.seg[which].base = base;
  return true;
}

// Delivered here and not by the run loop, so that the instruction counts as done.
bool enter_gate(Cpu& c, const Event& event) {
  if (!deliver_once(c, event, c.rip)) return false;
  if (c.stepping) c.trap_hold = TrapHold::kSingleStep;
  trace_far(c);
  return true;
}

}  // namespace

// c.rip is the next instruction's address already (end_op).
bool system_call(Cpu& c, const Op&) {
  if ((c.efer & efer::kSce) == 0 || !c.mode.is64()) return raise(c, kInvalidOpcode);
  const uint64_t flags = rflags(c) & ~flag::kRf;
  c.regs[kRcx] = c.rip;
  c.regs[kR11] = flags;
  c.rip = c.msr.lstar;
  set_arithmetic_flags(c, flags & ~c.msr.sfmask);
  c.rflags_other =
      (flags & ~flag::kArithmetic & ~(c.msr.sfmask | flag::kRf | flag::kVm)) | flag::kOne;
  const auto cs = static_cast<uint16_t>((c.msr.star >> 32) & 0xfffc);
  enter_flat(c, cs, kFlatCode64, static_cast<uint16_t>(cs + 8), 0);
  return true;
}

bool system_return(Cpu& c, const Op& op) {
  if ((c.efer & efer::kSce) == 0 || !c.mode.is64()) return raise(c, kInvalidOpcode);
  if (!privileged(c)) return false;
  const bool to64 = op.extra == 8;
  const uint64_t target = to64 ? c.regs[kRcx] : static_cast<uint32_t>(c.regs[kRcx]);
  if (!canonical(target)) return raise(c, kGeneralProtection, 0);
  const uint64_t flags = (c.regs[kR11] & 0x3c'7fd7) | flag::kOne;
  c.rip = target;
  set_arithmetic_flags(c, flags);
  c.rflags_other = flags & ~flag::kArithmetic;
  const auto base = static_cast<uint16_t>(c.msr.star >> 48);
  const auto cs = static_cast<uint16_t>((to64 ? base + 16 : base) | 3);
  enter_flat(c, cs, to64 ? kFlatCode64 : kFlatCode32, static_cast<uint16_t>((base + 8) | 3), 3);
  return true;
}

bool system_enter(Cpu& c, const Op&) {
  if (!protected_mode(c) || is_null(static_cast<uint16_t>(c.msr.sysenter_cs)))
    return raise(c, kGeneralProtection, 0);
  const bool wide = long_mode(c);
  c.regs[kRsp] = wide ? c.msr.sysenter_esp : static_cast<uint32_t>(c.msr.sysenter_esp);
  c.rip = wide ? c.msr.sysenter_eip : static_cast<uint32_t>(c.msr.sysenter_eip);
  c.rflags_other &= ~(flag::kIf | flag::kVm | flag::kRf);
  const auto cs = static_cast<uint16_t>(c.msr.sysenter_cs & 0xfffc);
  enter_flat(c, cs, wide ? kFlatCode64 : kFlatCode32, static_cast<uint16_t>(cs + 8), 0);
  return true;
}

bool system_exit(Cpu& c, const Op& op) {
  if (!protected_mode(c) || is_null(static_cast<uint16_t>(c.msr.sysenter_cs)))
    return raise(c, kGeneralProtection, 0);
  if (!privileged(c)) return false;
  const bool to64 = op.extra == 8;
  if (to64 && (!canonical(c.regs[kRcx]) || !canonical(c.regs[kRdx])))
    return raise(c, kGeneralProtection, 0);
  c.regs[kRsp] = to64 ? c.regs[kRcx] : static_cast<uint32_t>(c.regs[kRcx]);
  c.rip = to64 ? c.regs[kRdx] : static_cast<uint32_t>(c.regs[kRdx]);
  const uint64_t base = c.msr.sysenter_cs & 0xfffc;
  const auto cs = static_cast<uint16_t>((base + (to64 ? 32 : 16)) | 3);
  enter_flat(c, cs, to64 ? kFlatCode64 : kFlatCode32, static_cast<uint16_t>(cs + 8), 3);
  return true;
}

bool swap_gs(Cpu& c, const Op&) {
  if (!privileged(c)) return false;
  std::swap(c.seg[kGs].base, c.msr.kernel_gs_base);
  return true;
}

bool read_fs_base(Cpu& c, const Op& op) { return read_base(c, op, kFs); }
bool read_gs_base(Cpu& c, const Op& op) { return read_base(c, op, kGs); }
bool write_fs_base(Cpu& c, const Op& op) { return write_base(c, op, kFs); }
bool write_gs_base(Cpu& c, const Op& op) { return write_base(c, op, kGs); }

bool interrupt(Cpu& c, const Op& op) {
  return enter_gate(c, {.vector = static_cast<uint8_t>(op.imm), .kind = EventKind::kSoftware});
}

bool overflow_interrupt(Cpu& c, const Op&) {
  return !of(c) || enter_gate(c, {.vector = kOverflow, .kind = EventKind::kSoftware});
}

bool debug_interrupt(Cpu& c, const Op&) {
  report_debug_hits(c);
  return enter_gate(c, {.vector = kDebug, .kind = EventKind::kTrap});
}

}  // namespace us::hv
