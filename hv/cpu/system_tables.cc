// Descriptor table registers, segment registers by MOV, and the instructions that look at
// descriptors. SDM 2A-2B under each name.
#include "hv/cpu/debug.h"
#include "hv/cpu/system_instructions.h"

namespace us::hv {
namespace {

// User-mode instruction prevention: SGDT, SIDT, SLDT, STR, SMSW. SDM 3A 2.5 (CR4.UMIP).
bool umip_allows(Cpu& c) {
  return (c.cr4 & cr4::kUmip) == 0 || c.cpl == 0 || raise(c, kGeneralProtection, 0);
}

bool needs_protection(Cpu& c) { return protected_mode(c) || raise(c, kInvalidOpcode); }

bool store_table(Cpu& c, const Op& op, const TableRegister& table) {
  if (!umip_allows(c)) return false;
  const unsigned size = (op.extra & kSizeMask) == 8 ? 10 : 6;
  uint64_t linear;
  if (!general_address(c, &op, size, Access::kWrite, linear)) return false;
  uint8_t bytes[10];
  std::memcpy(bytes, &table.limit, 2);
  std::memcpy(bytes + 2, &table.base, 8);
  return store_slow(c, linear, bytes, size);
}

bool load_table(Cpu& c, const Op& op, TableRegister& table) {
  if (!privileged(c)) return false;
  const unsigned operand = op.extra & kSizeMask;
  const unsigned size = operand == 8 ? 10 : 6;
  uint64_t linear;
  if (!general_address(c, &op, size, Access::kRead, linear)) return false;
  uint8_t bytes[10] = {};
  if (!load_slow(c, linear, bytes, size)) return false;
  uint64_t base;
  std::memcpy(&base, bytes + 2, 8);
  if (operand == 2) base &= 0xff'ffff;
  if (operand == 4) base &= 0xffff'ffff;
  if (!canonical(base)) return raise(c, kGeneralProtection, 0);
  table.base = base;
  table.limit = read_host<uint16_t>(bytes);
  return true;
}

void set_zf(Cpu& c, bool value) {
  const uint64_t f = arithmetic_flags(c);
  set_arithmetic_flags(c, value ? f | flag::kZf : f & ~flag::kZf);
}

bool store_selector(Cpu& c, const Op& op, uint16_t selector) {
  const bool memory = (op.extra & kInMemory) != 0;
  return write_operand(c, op, memory ? 2 : op.extra & kSizeMask, selector);
}

// Whether `d` may be looked at from here: DPL against CPL and RPL, unless conforming code.
bool visible_from_here(const Cpu& c, const Descriptor& d, uint16_t selector) {
  return d.conforming() || (d.dpl() >= c.cpl && d.dpl() >= rpl_of(selector));
}

// Type masks for LAR and LSL: bit n says system type n is valid.
constexpr uint32_t kLarLegacy = 0x1a3e, kLarLong = 0x1a04, kLslLegacy = 0x0a0e, kLslLong = 0x0a04;

// The descriptor LAR and LSL ask about; `found` false: ZF is cleared and nothing else happens.
bool examine(Cpu& c, const Op& op, uint32_t system_types, Descriptor& d, uint16_t& selector,
             bool& found) {
  uint64_t value;
  if (!needs_protection(c) || !read_operand(c, op, 2, value)) return false;
  selector = static_cast<uint16_t>(value);
  if (!read_descriptor_quietly(c, selector, d, found)) return false;
  found = found && (!d.is_system() || ((system_types >> d.type()) & 1) != 0) &&
          visible_from_here(c, d, selector);
  return true;
}

void write_sized(Cpu& c, uint8_t number, unsigned size, uint32_t value) {
  if (size == 2) {
    set_reg<uint16_t>(c, number, static_cast<uint16_t>(value));
  } else {
    c.regs[number] = value;
  }
}

bool verify(Cpu& c, const Op& op, bool write) {
  uint64_t value;
  if (!needs_protection(c) || !read_operand(c, op, 2, value)) return false;
  const auto selector = static_cast<uint16_t>(value);
  Descriptor d;
  bool found;
  if (!read_descriptor_quietly(c, selector, d, found)) return false;
  const bool suits = found && (write ? d.writable_data() : d.readable());
  set_zf(c, suits && visible_from_here(c, d, selector));
  return true;
}

}  // namespace

bool store_gdt(Cpu& c, const Op& op) { return store_table(c, op, c.gdtr); }
bool store_idt(Cpu& c, const Op& op) { return store_table(c, op, c.idtr); }
bool load_gdt(Cpu& c, const Op& op) { return load_table(c, op, c.gdtr); }
bool load_idt(Cpu& c, const Op& op) { return load_table(c, op, c.idtr); }

bool store_ldt(Cpu& c, const Op& op) {
  return needs_protection(c) && umip_allows(c) && store_selector(c, op, c.ldtr.selector);
}
bool store_task(Cpu& c, const Op& op) {
  return needs_protection(c) && umip_allows(c) && store_selector(c, op, c.tr.selector);
}
bool load_ldt_op(Cpu& c, const Op& op) {
  uint64_t value;
  return needs_protection(c) && privileged(c) && read_operand(c, op, 2, value) &&
         load_ldt(c, static_cast<uint16_t>(value));
}
bool load_task_op(Cpu& c, const Op& op) {
  uint64_t value;
  return needs_protection(c) && privileged(c) && read_operand(c, op, 2, value) &&
         load_task_register(c, static_cast<uint16_t>(value));
}

bool load_access_rights(Cpu& c, const Op& op) {
  Descriptor d;
  uint16_t selector;
  bool found;
  if (!examine(c, op, long_mode(c) ? kLarLong : kLarLegacy, d, selector, found)) return false;
  set_zf(c, found);
  if (found)
    write_sized(c, op.src, op.extra & kSizeMask, static_cast<uint32_t>(d.low >> 32) & 0x00f0'ff00);
  return true;
}

bool load_segment_limit(Cpu& c, const Op& op) {
  Descriptor d;
  uint16_t selector;
  bool found;
  if (!examine(c, op, long_mode(c) ? kLslLong : kLslLegacy, d, selector, found)) return false;
  set_zf(c, found);
  if (found) write_sized(c, op.src, op.extra & kSizeMask, segment_from(d, selector).limit);
  return true;
}

bool verify_read(Cpu& c, const Op& op) { return verify(c, op, false); }
bool verify_write(Cpu& c, const Op& op) { return verify(c, op, true); }

bool adjust_rpl(Cpu& c, const Op& op) {
  if (!needs_protection(c)) return false;
  if ((op.extra & kInMemory) != 0) {
    uint64_t linear;
    if (!general_address(c, &op, 2, Access::kWrite, linear) || !probe_write(c, linear, 2))
      return false;
  }
  uint64_t value;
  if (!read_operand(c, op, 2, value)) return false;
  const uint64_t wanted = c.regs[op.src] & 3;
  const bool lower = (value & 3) < wanted;
  if (!write_operand(c, op, 2, lower ? (value & ~uint64_t{3}) | wanted : value)) return false;
  set_zf(c, lower);
  return true;
}

bool read_segment(Cpu& c, const Op& op) { return store_selector(c, op, c.seg[op.src].selector); }

bool write_segment(Cpu& c, const Op& op) {
  uint64_t value;
  return read_operand(c, op, 2, value) &&
         load_segment(c, static_cast<Seg>(op.src), static_cast<uint16_t>(value));
}

bool write_stack_segment(Cpu& c, const Op& op) {
  if (!write_segment(c, op)) return false;
  hold_events(c);
  return true;
}

bool load_far_pointer(Cpu& c, const Op& op) {
  const unsigned size = op.extra & kSizeMask;
  uint64_t linear;
  if (!general_address(c, &op, size + 2, Access::kRead, linear)) return false;
  uint8_t bytes[10];
  if (!load_slow(c, linear, bytes, size + 2)) return false;
  const auto which = static_cast<Seg>(op.imm);
  if (!load_segment(c, which, read_host<uint16_t>(bytes + size))) return false;
  uint64_t offset = 0;
  std::memcpy(&offset, bytes, size);
  if (size == 2) {
    set_reg<uint16_t>(c, op.src, static_cast<uint16_t>(offset));
  } else {
    c.regs[op.src] = offset;
  }
  return true;
}

}  // namespace us::hv
