// Control and debug registers. SDM 3A 2.5, SDM 2B "MOV-Move to/from Control Registers".
#include "hv/cpu/debug.h"
#include "hv/cpu/system_instructions.h"
#include "hv/cpu/trace.h"

namespace us::hv {
namespace {

constexpr uint64_t kCr0Known = 0xe005'003f;
constexpr uint64_t kCr4Known = cr4::kTsd | cr4::kDe | cr4::kPse | cr4::kPae | cr4::kMce |
                               cr4::kPge | cr4::kPce | cr4::kOsfxsr | cr4::kOsxmmexcpt |
                               cr4::kUmip | cr4::kFsgsbase | cr4::kOsxsave | cr4::kSmep |
                               cr4::kSmap;

bool refuse(Cpu& c) { return raise(c, kGeneralProtection, 0); }

bool pae_tables(const Cpu& c, uint64_t cr0_value, uint64_t cr4_value) {
  return (cr0_value & cr0::kPg) != 0 && (cr4_value & cr4::kPae) != 0 && !long_mode(c);
}

// Turning paging on or off is what enters and leaves IA-32e mode. SDM 3A 10.8.5.
bool switch_paging(Cpu& c, bool on, uint64_t value) {
  if (on && (c.efer & efer::kLme) != 0) {
    if ((c.cr4 & cr4::kPae) == 0 || c.seg[kCs].is_long()) return refuse(c);
    c.efer |= efer::kLma;
    return true;
  }
  if (on) return !pae_tables(c, value, c.cr4) || load_pdptes(c, c.cr3);
  if (c.mode.is64()) return refuse(c);
  c.efer &= ~efer::kLma;
  return true;
}

bool set_cr0(Cpu& c, uint64_t value) {
  if ((value >> 32) != 0) return refuse(c);
  value = (value & kCr0Known) | cr0::kEt;
  if ((value & cr0::kPg) != 0 && (value & cr0::kPe) == 0) return refuse(c);
  if ((value & cr0::kNw) != 0 && (value & cr0::kCd) == 0) return refuse(c);
  const uint64_t changed = value ^ c.cr0;
  if ((changed & cr0::kPg) != 0) {
    if (!switch_paging(c, (value & cr0::kPg) != 0, value)) return false;
  } else if ((changed & (cr0::kCd | cr0::kNw)) != 0 && pae_tables(c, value, c.cr4)) {
    if (!load_pdptes(c, c.cr3)) return false;
  }
  c.cr0 = value;
  if ((changed & cr0::kPe) != 0) c.cpl = 0;
  if ((changed & (cr0::kPg | cr0::kWp | cr0::kPe)) != 0) flush_tlb_all(c);
  update_mode(c);
  return true;
}

bool set_cr3(Cpu& c, uint64_t value) {
  if (long_mode(c)) {
    if ((value >> kPhysicalBits) != 0) return refuse(c);
  } else {
    value &= 0xffff'ffff;
    if (pae_tables(c, c.cr0, c.cr4) && !load_pdptes(c, value)) return false;
  }
  c.cr3 = value;
  trace_cr3(c);
  flush_tlb_nonglobal(c);
  return true;
}

bool set_cr4(Cpu& c, uint64_t value) {
  if ((value & ~kCr4Known) != 0) return refuse(c);
  if (long_mode(c) && (value & cr4::kPae) == 0) return refuse(c);
  constexpr uint64_t kTranslation = cr4::kPae | cr4::kPge | cr4::kPse | cr4::kSmep | cr4::kSmap;
  const uint64_t changed = value ^ c.cr4;
  const bool reload = (changed & (cr4::kPae | cr4::kPge | cr4::kPse | cr4::kSmep)) != 0;
  if (reload && pae_tables(c, c.cr0, value) && !load_pdptes(c, c.cr3)) return false;
  c.cr4 = value;
  if ((changed & kTranslation) != 0) flush_tlb_all(c);
  update_mode(c);
  return true;
}

// CR4.DE makes DR4 and DR5 undefined, else they are DR6 and DR7. DR7.GD guards all of them.
bool debug_register_number(Cpu& c, unsigned& number) {
  if (number == 4 || number == 5) {
    if ((c.cr4 & cr4::kDe) != 0) return raise(c, kInvalidOpcode);
    number += 2;
  }
  if (!privileged(c)) return false;
  if ((c.dr7 & (1u << 13)) != 0) {
    c.dr6 |= dr6::kBd;
    return raise(c, kDebug);
  }
  return true;
}

uint64_t source_register(const Cpu& c, const Op& op) {
  return c.mode.is64() ? c.regs[op.src] : static_cast<uint32_t>(c.regs[op.src]);
}

}  // namespace

bool read_control(Cpu& c, const Op& op) {
  if (!privileged(c)) return false;
  uint64_t value = 0;
  switch (op.src) {
    case 0: value = c.cr0; break;
    case 2: value = c.cr2; break;
    case 3: value = c.cr3; break;
    case 4: value = c.cr4; break;
    case 8: value = c.bus.task_priority(); break;
    default: return raise(c, kInvalidOpcode);
  }
  c.regs[op.dst] = c.mode.is64() ? value : static_cast<uint32_t>(value);
  return true;
}

bool write_control(Cpu& c, const Op& op) {
  if (!privileged(c)) return false;
  const uint64_t value = source_register(c, op);
  switch (op.dst) {
    case 0: return set_cr0(c, value);
    case 2: c.cr2 = value; return true;
    case 3: return set_cr3(c, value);
    case 4: return set_cr4(c, value);
    case 8:
      if ((value >> 4) != 0) return refuse(c);
      c.bus.set_task_priority(static_cast<uint8_t>(value));
      return true;
    default: return raise(c, kInvalidOpcode);
  }
}

bool read_debug(Cpu& c, const Op& op) {
  unsigned number = op.src;
  if (!debug_register_number(c, number)) return false;
  const uint64_t value = number < 4 ? c.dr[number] : number == 6 ? c.dr6 : c.dr7;
  c.regs[op.dst] = c.mode.is64() ? value : static_cast<uint32_t>(value);
  return true;
}

bool write_debug(Cpu& c, const Op& op) {
  unsigned number = op.dst;
  if (!debug_register_number(c, number)) return false;
  const uint64_t value = source_register(c, op);
  if (number >= 6 && (value >> 32) != 0) return refuse(c);
  // Fixed bits: SDM 3B 18.2.3, 18.2.4.
  if (number < 4) {
    c.dr[number] = value;
  } else if (number == 6) {
    c.dr6 = (value & 0xe00f) | 0xffff'0ff0;
  } else {
    c.dr7 = (value & 0xffff'23ff) | 0x400;
    if (data_watched(c)) flush_tlb_all(c);
  }
  return true;
}

bool load_machine_status(Cpu& c, const Op& op) {
  if (!privileged(c)) return false;
  uint64_t value;
  if (!read_operand(c, op, 2, value)) return false;
  // PE can be set this way, not cleared.
  const uint64_t kept = (c.cr0 & ~uint64_t{0xe}) | (value & 0xf);
  return set_cr0(c, kept);
}

bool store_machine_status(Cpu& c, const Op& op) {
  if ((c.cr4 & cr4::kUmip) != 0 && c.cpl > 0) return refuse(c);
  const bool memory = (op.extra & kInMemory) != 0;
  return write_operand(c, op, memory ? 2 : op.extra & kSizeMask, c.cr0);
}

bool clear_task_switched(Cpu& c, const Op&) {
  if (!privileged(c)) return false;
  c.cr0 &= ~cr0::kTs;
  update_mode(c);
  return true;
}

bool invalidate_page(Cpu& c, const Op& op) {
  if (!privileged(c)) return false;
  uint64_t linear = segment_offset(c, &op);
  if (c.mode.is64()) {
    if (op.seg == kFs || op.seg == kGs) linear += c.seg[op.seg].base;
  } else {
    linear = static_cast<uint32_t>(linear + c.seg[op.seg].base);
  }
  flush_tlb_page(c, linear);
  return true;
}

bool flush_caches(Cpu& c, const Op&) { return privileged(c); }

bool get_xcr(Cpu& c, const Op&) {
  if ((c.cr4 & cr4::kOsxsave) == 0) return raise(c, kInvalidOpcode);
  if (static_cast<uint32_t>(c.regs[kRcx]) != 0) return refuse(c);
  c.regs[kRax] = static_cast<uint32_t>(c.xcr0);
  c.regs[kRdx] = c.xcr0 >> 32;
  return true;
}

bool set_xcr(Cpu& c, const Op&) {
  if ((c.cr4 & cr4::kOsxsave) == 0) return raise(c, kInvalidOpcode);
  if (!privileged(c)) return false;
  const uint64_t value = static_cast<uint32_t>(c.regs[kRax]) | (c.regs[kRdx] << 32);
  constexpr uint64_t kX87AndSse = 3;
  if (static_cast<uint32_t>(c.regs[kRcx]) != 0 || (value & 1) == 0 || (value & ~kX87AndSse) != 0)
    return refuse(c);
  c.xcr0 = value;
  return true;
}

}  // namespace us::hv
