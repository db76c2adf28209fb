// PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE. SDM 2, each instruction's page.
#include "hv/cpu/stack.h"

#include "hv/cpu/debug.h"
#include "hv/cpu/integer.h"

namespace us::hv {

Address stack_address(Cpu& c, uint64_t sp, unsigned size, Access access) {
  if (c.mode.is64()) {
    // A stack address that is not canonical is #SS, not #GP. SDM 1 3.3.7.1.
    const auto top = static_cast<int64_t>(sp) >> 47;
    if (top == 0 || top == -1) return {sp, true};
    return {sp, raise(c, kStackFault, 0)};
  }
  Op at{};
  at.base = at.index = kZero;
  at.seg = kSs;
  at.disp = static_cast<int32_t>(static_cast<uint32_t>(sp));
  at.flags = (c.mode.bits & Mode::kStack32) ? Op::kAddress32 : Op::kAddress16;
  return general_address_of(c, &at, size, access);
}

namespace {

// memcpy of 2, 4 or 8 bytes without a call.
inline void copy_slot(void* to, const void* from, unsigned size) {
  if (size == 8) {
    std::memcpy(to, from, 8);
  } else if (size == 4) {
    std::memcpy(to, from, 4);
  } else {
    std::memcpy(to, from, 2);
  }
}

bool store_at(Cpu& c, uint64_t sp, uint64_t value, unsigned size) {
  const Address a = stack_address(c, sp & stack_mask(c), size, Access::kWrite);
  if (!a.ok) return false;
  if (uint8_t* at = direct_write(c, a.linear, size); US_LIKELY(at != nullptr)) {
    copy_slot(at, &value, size);
    return true;
  }
  return store_slow(c, a.linear, &value, size);
}
bool load_at(Cpu& c, uint64_t sp, uint64_t& value, unsigned size) {
  const Address a = stack_address(c, sp & stack_mask(c), size, Access::kRead);
  if (!a.ok) return false;
  value = 0;
  if (const uint8_t* at = direct_read(c, a.linear, size); US_LIKELY(at != nullptr)) {
    copy_slot(&value, at, size);
    return true;
  }
  return load_slow(c, a.linear, &value, size);
}
bool probe_at(Cpu& c, uint64_t sp, unsigned size) {
  const Address a = stack_address(c, sp & stack_mask(c), size, Access::kWrite);
  return a.ok && probe_write(c, a.linear, size);
}

}  // namespace

bool push_value(Cpu& c, uint64_t value, unsigned size) {
  const uint64_t sp = stack_pointer(c) - size;
  if (!store_at(c, sp, value, size)) return false;
  set_stack_pointer(c, sp);
  return true;
}

bool pop_value(Cpu& c, uint64_t& value, unsigned size) {
  const uint64_t sp = stack_pointer(c);
  if (!load_at(c, sp, value, size)) return false;
  set_stack_pointer(c, sp + size);
  return true;
}

namespace {

// The family's helpers keep the operand size in extra.
void set_sized(Cpu& c, uint8_t reg, uint64_t value, unsigned size) {
  if (size == 2) {
    set_reg<uint16_t>(c, reg, static_cast<uint16_t>(value));
  } else {
    c.regs[reg] = size == 4 ? static_cast<uint32_t>(value) : value;
  }
}

// --- PUSH and POP of registers and immediates

bool push_reg(Cpu& c, const Op& op) { return push_value(c, c.regs[op.src], op.extra); }
bool push_imm(Cpu& c, const Op& op) { return push_value(c, op.imm, op.extra); }
bool pop_reg(Cpu& c, const Op& op) {
  uint64_t value;
  if (!pop_value(c, value, op.extra)) return false;
  set_sized(c, op.dst, value, op.extra);
  return true;
}

const Op* push_reg64(Cpu& c, const Op* op) {
  const uint64_t sp = c.regs[kRsp] - 8;
  uint8_t* at = direct_write(c, sp, 8);
  if (US_LIKELY(at != nullptr)) {
    write_host<uint64_t>(at, c.regs[op->src]);
    c.regs[kRsp] = sp;
    US_NEXT(c, op);
  }
  US_TAIL return call_op<push_reg>(c, op);
}
const Op* push_imm64(Cpu& c, const Op* op) {
  const uint64_t sp = c.regs[kRsp] - 8;
  uint8_t* at = direct_write(c, sp, 8);
  if (US_LIKELY(at != nullptr)) {
    write_host<uint64_t>(at, op->imm);
    c.regs[kRsp] = sp;
    US_NEXT(c, op);
  }
  US_TAIL return call_op<push_imm>(c, op);
}
const Op* pop_reg64(Cpu& c, const Op* op) {
  const uint64_t sp = c.regs[kRsp];
  const uint8_t* at = direct_read(c, sp, 8);
  if (US_LIKELY(at != nullptr)) {
    const uint64_t value = read_host<uint64_t>(at);
    c.regs[kRsp] = sp + 8;
    c.regs[op->dst] = value;  // last, for POP RSP
    US_NEXT(c, op);
  }
  US_TAIL return call_op<pop_reg>(c, op);
}

// --- Memory and segment registers

bool push_mem(Cpu& c, const Op& op) {
  const Address a = any_address(c, op, op.extra, Access::kRead);
  if (!a.ok) return false;
  uint64_t value = 0;
  if (const uint8_t* at = direct_read(c, a.linear, op.extra); at != nullptr) {
    copy_slot(&value, at, op.extra);
  } else if (!load_slow(c, a.linear, &value, op.extra)) {
    return false;
  }
  return push_value(c, value, op.extra);
}

const Op* push_mem64(Cpu& c, const Op* op) {
  const uint64_t sp = c.regs[kRsp] - 8;
  const uint8_t* from = direct_read(c, flat_address(c, op), 8);
  uint8_t* to = direct_write(c, sp, 8);
  if (US_LIKELY(from != nullptr && to != nullptr)) {
    write_host<uint64_t>(to, read_host<uint64_t>(from));
    c.regs[kRsp] = sp;
    US_NEXT(c, op);
  }
  US_TAIL return call_op<push_mem>(c, op);
}

// A destination addressed through RSP sees the pointer already moved. SDM 2B "POP".
bool pop_mem(Cpu& c, const Op& op) {
  const uint64_t before = c.regs[kRsp];
  uint64_t value;
  if (!pop_value(c, value, op.extra)) return false;
  const Address a = any_address(c, op, op.extra, Access::kWrite);
  if (a.ok && store_slow(c, a.linear, &value, op.extra)) return true;
  c.regs[kRsp] = before;
  return false;
}

// With a 32-bit operand current parts write only the selector's 16 bits. SDM 2B "PUSH".
bool push_segment(Cpu& c, const Op& op) {
  const uint64_t sp = stack_pointer(c) - op.extra;
  if (!store_at(c, sp, c.seg[op.src].selector, op.extra == 4 ? 2 : op.extra)) return false;
  set_stack_pointer(c, sp);
  return true;
}
bool pop_segment(Cpu& c, const Op& op) {
  // The pointer moves by the width it had before SS changed, and only if the load succeeds.
  const uint64_t mask = stack_mask(c);
  const uint64_t sp = stack_pointer(c);
  uint64_t value;
  if (!load_at(c, sp, value, op.extra == 4 ? 2 : op.extra)) return false;
  if (!load_segment(c, static_cast<Seg>(op.dst), static_cast<uint16_t>(value))) return false;
  const uint64_t kept = mask == 0xffff ? c.regs[kRsp] & ~mask : 0;
  c.regs[kRsp] = kept | ((sp + op.extra) & mask);
  if (op.dst == kSs) hold_events(c);
  return true;
}

// --- PUSHA, POPA: RAX RCX RDX RBX RSP RBP RSI RDI

bool push_all(Cpu& c, const Op& op) {
  const uint64_t sp = stack_pointer(c);
  for (unsigned i = 1; i <= 8; ++i)
    if (!probe_at(c, sp - i * op.extra, op.extra)) return false;
  for (unsigned i = 0; i < 8; ++i)
    if (!store_at(c, sp - (i + 1) * op.extra, c.regs[i], op.extra)) return false;
  set_stack_pointer(c, sp - 8u * op.extra);
  return true;
}
bool pop_all(Cpu& c, const Op& op) {
  const uint64_t sp = stack_pointer(c);
  uint64_t values[8];
  for (unsigned i = 0; i < 8; ++i)
    if (!load_at(c, sp + i * op.extra, values[7 - i], op.extra)) return false;
  for (uint8_t reg = 0; reg < 8; ++reg)
    if (reg != kRsp) set_sized(c, reg, values[reg], op.extra);
  set_stack_pointer(c, sp + 8u * op.extra);
  return true;
}

// --- PUSHF, POPF

bool virtual_8086(const Cpu& c) { return (c.rflags_other & flag::kVm) != 0; }
unsigned iopl(const Cpu& c) { return static_cast<unsigned>((c.rflags_other & flag::kIopl) >> 12); }

bool push_flags(Cpu& c, const Op& op) {
  if (virtual_8086(c) && iopl(c) < 3) return raise(c, kGeneralProtection, 0);
  return push_value(c, rflags(c) & ~(flag::kVm | flag::kRf), op.extra);
}

// Which RFLAGS bits POPF may change. SDM 2B "POPF", table 4-16.
uint64_t writable_flags(const Cpu& c, unsigned size) {
  uint64_t mask = flag::kArithmetic | flag::kTf | flag::kDf | flag::kNt;
  if (size > 2) mask |= flag::kAc | flag::kId | flag::kRf;
  const bool real = (c.cr0 & cr0::kPe) == 0;
  if (real || c.cpl == 0) mask |= flag::kIopl;
  if (real || c.cpl <= iopl(c)) mask |= flag::kIf;
  return mask;
}
bool pop_flags(Cpu& c, const Op& op) {
  if (virtual_8086(c) && iopl(c) < 3) return raise(c, kGeneralProtection, 0);
  uint64_t value;
  if (!pop_value(c, value, op.extra)) return false;
  write_rflags(c, value & ~flag::kRf, writable_flags(c, op.extra));
  return true;
}
// The block goes on unless something changed that the run loop looks at between instructions.
const Op* pop_flags_op(Cpu& c, const Op* op) {
  constexpr uint64_t kWatched = flag::kIf | flag::kTf | flag::kAc;
  const uint64_t before = c.rflags_other;
  if (US_UNLIKELY(!pop_flags(c, *op))) return leave(c, op);
  if (((before ^ c.rflags_other) & kWatched) == 0 && (c.rflags_other & flag::kTf) == 0)
    US_NEXT(c, op);
  c.rip = next_rip(c, *op);
  return leave_done(c, op);
}

// --- ENTER, LEAVE

// Whether all that ENTER reads and writes can be read and written, and a store at the final stack
// pointer too. SDM 2A "ENTER".
bool enter_possible(Cpu& c, const Op& op, uint64_t sp, unsigned pushes) {
  uint64_t ignored;
  for (unsigned i = 1; i < op.src; ++i)
    if (!load_at(c, c.regs[kRbp] - i * op.extra, ignored, op.extra)) return false;
  for (unsigned i = 1; i <= pushes; ++i)
    if (!probe_at(c, sp - i * op.extra, op.extra)) return false;
  return op.imm == 0 || probe_at(c, sp - pushes * op.extra - op.imm, op.extra);
}
// imm: bytes to allocate, src: nesting level. The new frame may overlap the enclosing frame
// pointers it copies, so loads and stores alternate; nothing is stored before all of it is known to
// succeed.
bool enter(Cpu& c, const Op& op) {
  const unsigned size = op.extra, level = op.src, pushes = level == 0 ? 1 : level + 1;
  const uint64_t start = stack_pointer(c), frame = start - size;
  if (!enter_possible(c, op, start, pushes)) return false;
  uint64_t sp = frame;
  if (!store_at(c, sp, c.regs[kRbp], size)) return false;
  for (unsigned i = 1; i < level; ++i) {
    uint64_t link;
    if (!load_at(c, c.regs[kRbp] - i * size, link, size)) return false;
    sp -= size;
    if (!store_at(c, sp, link, size)) return false;
  }
  if (level > 0) {
    sp -= size;
    if (!store_at(c, sp, frame & stack_mask(c), size)) return false;
  }
  set_sized(c, kRbp, frame & stack_mask(c), size);
  set_stack_pointer(c, sp - op.imm);
  return true;
}

bool leave_frame(Cpu& c, const Op& op) {
  const uint64_t sp = c.regs[kRbp] & stack_mask(c);
  uint64_t value;
  if (!load_at(c, sp, value, op.extra)) return false;
  set_stack_pointer(c, sp + op.extra);
  set_sized(c, kRbp, value, op.extra);
  return true;
}
const Op* leave_frame64(Cpu& c, const Op* op) {
  const uint64_t sp = c.regs[kRbp];
  const uint8_t* at = direct_read(c, sp, 8);
  if (US_LIKELY(at != nullptr)) {
    c.regs[kRbp] = read_host<uint64_t>(at);
    c.regs[kRsp] = sp + 8;
    US_NEXT(c, op);
  }
  US_TAIL return call_op<leave_frame>(c, op);
}

// --- Selection

bool segment_operand(const Insn& in) {
  return in.is_reg(0) && in.reg_class(0) == ZYDIS_REGCLASS_SEGMENT;
}
uint8_t segment_number(const Insn& in) {
  switch (in.reg(0)) {
    case ZYDIS_REGISTER_ES: return kEs;
    case ZYDIS_REGISTER_CS: return kCs;
    case ZYDIS_REGISTER_SS: return kSs;
    case ZYDIS_REGISTER_FS: return kFs;
    case ZYDIS_REGISTER_GS: return kGs;
    default: return kDs;
  }
}

Selection select_push(const Insn& in, Op& op) {
  const bool fast = in.mode.is64() && op.extra == 8;
  if (segment_operand(in)) {
    op.src = segment_number(in);
    return {.fn = &call_op<push_segment>};
  }
  if (in.is_mem(0)) {
    set_memory(op, in, 0);
    return {.fn = fast && in.flat() ? &push_mem64 : &call_op<push_mem>};
  }
  if (in.is_imm(0)) {
    op.imm = in.imm(0);
    return {.fn = fast ? &push_imm64 : &call_op<push_imm>};
  }
  op.src = in.number(0);
  return {.fn = fast ? &push_reg64 : &call_op<push_reg>};
}

Selection select_pop(const Insn& in, Op& op) {
  if (segment_operand(in)) {
    op.dst = segment_number(in);
    return {.fn = &end_op<pop_segment>, .ends_block = true};
  }
  if (in.is_mem(0)) {
    set_memory(op, in, 0);
    return {.fn = &call_op<pop_mem>};
  }
  op.dst = in.number(0);
  return {.fn = in.mode.is64() && op.extra == 8 ? &pop_reg64 : &call_op<pop_reg>};
}

Selection select_enter(const Insn& in, Op& op) {
  op.imm = in.imm(0) & 0xffff;
  op.src = static_cast<uint8_t>(in.imm(1) & 31);
  return {.fn = &call_op<enter>};
}

Selection select_leave(const Insn& in, Op& op) {
  return {.fn = in.mode.is64() && op.extra == 8 ? &leave_frame64 : &call_op<leave_frame>};
}

}  // namespace

Selection select_stack(const Insn& in, Op& op) {
  const uint8_t extra = op.extra;
  op.extra = static_cast<uint8_t>(in.operand_size());
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_PUSH: return select_push(in, op);
    case ZYDIS_MNEMONIC_POP: return select_pop(in, op);
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD: return {.fn = &call_op<push_all>};
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD: return {.fn = &call_op<pop_all>};
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ: return {.fn = &call_op<push_flags>};
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: return {.fn = &pop_flags_op};
    case ZYDIS_MNEMONIC_ENTER: return select_enter(in, op);
    case ZYDIS_MNEMONIC_LEAVE: return select_leave(in, op);
    default: op.extra = extra; return {};
  }
}

}  // namespace us::hv
