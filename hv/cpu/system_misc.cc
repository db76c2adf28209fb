// Small system instructions: interrupt flag, time, MSRs, CPUID. SDM 2A-2B under each name.
#include "hv/cpu/system_instructions.h"

namespace us::hv {
namespace {

// Virtual-8086 and protected-mode virtual interrupts are not offered, so IOPL alone decides.
bool may_change_if(Cpu& c) {
  return !protected_mode(c) || c.cpl <= iopl(c) || raise(c, kGeneralProtection, 0);
}

bool time_allowed(Cpu& c) {
  return (c.cr4 & cr4::kTsd) == 0 || c.cpl == 0 || raise(c, kGeneralProtection, 0);
}

void set_edx_eax(Cpu& c, uint64_t value) {
  c.regs[kRax] = static_cast<uint32_t>(value);
  c.regs[kRdx] = value >> 32;
}

bool on_bus(uint32_t index) {
  return index == 0x1b || index == 0x6e0 || (index >= 0x800 && index <= 0x8ff);
}

}  // namespace

bool halt(Cpu& c, const Op&) {
  if (!privileged(c)) return false;
  c.halted = true;
  return true;
}

bool disable_interrupts(Cpu& c, const Op&) {
  if (!may_change_if(c)) return false;
  c.rflags_other &= ~flag::kIf;
  return true;
}

bool enable_interrupts(Cpu& c, const Op&) {
  if (!may_change_if(c)) return false;
  if ((c.rflags_other & flag::kIf) == 0) c.interrupt_shadow = true;
  c.rflags_other |= flag::kIf;
  return true;
}

bool set_ac(Cpu& c, const Op&) {
  if (c.cpl != 0) return raise(c, kInvalidOpcode);
  c.rflags_other |= flag::kAc;
  update_bank(c);
  return true;
}

bool clear_ac(Cpu& c, const Op&) {
  if (c.cpl != 0) return raise(c, kInvalidOpcode);
  c.rflags_other &= ~flag::kAc;
  update_bank(c);
  return true;
}

bool read_time(Cpu& c, const Op&) {
  if (!time_allowed(c)) return false;
  if (c.intercepts.time && !c.stepping) return needs_step(c);
  set_edx_eax(c, c.bus.tsc(Branches(c.branches)).value);
  return true;
}

bool read_time_and_aux(Cpu& c, const Op& op) {
  if (!read_time(c, op)) return false;
  c.regs[kRcx] = static_cast<uint32_t>(c.msr.tsc_aux);
  return true;
}

// No performance counters are offered (CPUID leaf 0xa), so no index is valid.
bool read_counter(Cpu& c, const Op&) { return raise(c, kGeneralProtection, 0); }

bool read_msr_op(Cpu& c, const Op&) {
  if (!privileged(c)) return false;
  const auto index = static_cast<uint32_t>(c.regs[kRcx]);
  if ((on_bus(index) || c.intercepts.msrs) && !c.stepping) return needs_step(c);
  uint64_t value = 0;
  if (c.intercepts.msrs) {
    if (!c.bus.msr_read(index, value)) return raise(c, kGeneralProtection, 0);
  } else if (!read_msr(c, index, value)) {
    return false;
  }
  set_edx_eax(c, value);
  return true;
}

bool write_msr_op(Cpu& c, const Op&) {
  if (!privileged(c)) return false;
  const auto index = static_cast<uint32_t>(c.regs[kRcx]);
  // Writing the time stamp counter moves timers too, so the machine must look.
  if ((on_bus(index) || index == 0x10 || c.intercepts.msrs) && !c.stepping) return needs_step(c);
  const uint64_t value = static_cast<uint32_t>(c.regs[kRax]) | (c.regs[kRdx] << 32);
  if (c.intercepts.msrs) return c.bus.msr_write(index, value) || raise(c, kGeneralProtection, 0);
  return write_msr(c, index, value);
}

bool cpuid_op(Cpu& c, const Op&) {
  uint32_t out[4];
  cpuid(c, static_cast<uint32_t>(c.regs[kRax]), static_cast<uint32_t>(c.regs[kRcx]), out);
  c.regs[kRax] = out[0];
  c.regs[kRbx] = out[1];
  c.regs[kRcx] = out[2];
  c.regs[kRdx] = out[3];
  return true;
}

bool not_there(Cpu& c, const Op&) { return raise(c, kInvalidOpcode); }

bool read_operand(Cpu& c, const Op& op, unsigned size, uint64_t& value) {
  value = c.regs[op.dst];
  if ((op.extra & kInMemory) != 0) {
    uint64_t linear;
    value = 0;
    return general_address(c, &op, size, Access::kRead, linear) &&
           load_slow(c, linear, &value, size);
  }
  if (size < 8) value &= (uint64_t{1} << (8 * size)) - 1;
  return true;
}

bool write_operand(Cpu& c, const Op& op, unsigned size, uint64_t value) {
  if ((op.extra & kInMemory) != 0) {
    uint64_t linear;
    return general_address(c, &op, size, Access::kWrite, linear) &&
           store_slow(c, linear, &value, size);
  }
  if (size == 2) {
    set_reg<uint16_t>(c, op.dst, static_cast<uint16_t>(value));
  } else {
    c.regs[op.dst] = size == 4 ? static_cast<uint32_t>(value) : value;
  }
  return true;
}

}  // namespace us::hv
