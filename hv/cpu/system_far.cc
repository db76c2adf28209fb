// Far JMP and CALL, direct and through call gates. SDM 2A "CALL", "JMP", SDM 3A 5.8. Task switches
// are refused with #GP.
#include "hv/cpu/system_instructions.h"
#include "hv/cpu/trace.h"

namespace us::hv {
namespace {

uint32_t code_of(uint16_t selector) { return selector & 0xfffcu; }

struct Target {
  uint16_t selector = 0;
  uint64_t offset = 0;
  Descriptor code;
  unsigned cpl = 0;     // after the transfer
  unsigned slot = 0;    // bytes per pushed value
  unsigned copied = 0;  // parameters a 32-bit call gate copies
};

// ptr16:16/32 in the instruction (imm: offset, disp: selector), or m16:16/32/64.
bool read_pointer(Cpu& c, const Op& op, Target& t) {
  const unsigned size = op.extra & kSizeMask;
  t.slot = size;
  if ((op.extra & kInMemory) == 0) {
    t.offset = op.imm;
    t.selector = static_cast<uint16_t>(op.disp);
    return true;
  }
  uint64_t linear;
  uint8_t bytes[10];
  if (!general_address(c, &op, size + 2, Access::kRead, linear) ||
      !load_slow(c, linear, bytes, size + 2))
    return false;
  std::memcpy(&t.offset, bytes, size);
  t.selector = read_host<uint16_t>(bytes + size);
  return true;
}

bool check_code(Cpu& c, const Target& t) {
  const bool both_sizes = long_mode(c) && t.code.is_long() && t.code.big();
  if (both_sizes) return raise(c, kGeneralProtection, code_of(t.selector));
  if (!t.code.present()) return raise(c, kSegmentNotPresent, code_of(t.selector));
  return check_entry_offset(c, t.code, t.offset);
}

// A code segment named directly: the privilege stays.
bool direct_target(Cpu& c, Target& t) {
  const bool suits = t.code.conforming() ? t.code.dpl() <= c.cpl
                                         : t.code.dpl() == c.cpl && rpl_of(t.selector) <= c.cpl;
  if (!suits) return raise(c, kGeneralProtection, code_of(t.selector));
  t.cpl = c.cpl;
  return check_code(c, t);
}

bool gate_target(Cpu& c, Target& t, bool call) {
  const uint16_t gate_selector = t.selector;
  Descriptor gate = t.code;
  const unsigned type = gate.type();
  const bool usable_type = type == 0xc || (type == 4 && !long_mode(c));
  if (!usable_type || gate.dpl() < c.cpl || gate.dpl() < rpl_of(gate_selector))
    return raise(c, kGeneralProtection, code_of(gate_selector));
  if (!gate.present()) return raise(c, kSegmentNotPresent, code_of(gate_selector));
  if (long_mode(c) && !read_descriptor16(c, gate_selector, gate)) return false;
  t.selector = gate.gate_selector();
  t.offset = gate.gate_offset() | (gate.high << 32);
  t.slot = long_mode(c) ? 8 : type == 0xc ? 4 : 2;
  if (t.slot == 2) t.offset &= 0xffff;
  t.copied = long_mode(c) ? 0 : (gate.low >> 32) & 0x1f;
  if (is_null(t.selector)) return raise(c, kGeneralProtection, 0);
  if (!read_descriptor(c, t.selector, t.code)) return false;
  const bool inward = t.code.conforming() || call ? t.code.dpl() <= c.cpl : t.code.dpl() == c.cpl;
  if (!t.code.is_code() || !inward || (long_mode(c) && !t.code.is_long()))
    return raise(c, kGeneralProtection, code_of(t.selector));
  t.cpl = t.code.conforming() ? c.cpl : t.code.dpl();
  return check_code(c, t);
}

bool find_target(Cpu& c, Target& t, bool call) {
  if (is_null(t.selector)) return raise(c, kGeneralProtection, 0);
  if (!read_descriptor(c, t.selector, t.code)) return false;
  if (t.code.is_code()) return direct_target(c, t);
  if (t.code.is_system()) return gate_target(c, t, call);
  return raise(c, kGeneralProtection, code_of(t.selector));
}

void arrive(Cpu& c, const Target& t) {
  const bool to64 = long_mode(c) && t.code.is_long();
  c.rip = to64 ? t.offset : static_cast<uint32_t>(t.offset);
  install_code(c, t.code, t.selector, t.cpl);
  trace_far(c);
}

bool transfer_real(Cpu& c, const Target& t) {
  if (t.offset > c.seg[kCs].limit) return raise(c, kGeneralProtection, 0);
  c.rip = t.offset;
  c.seg[kCs].selector = t.selector;
  c.seg[kCs].base = uint64_t{t.selector} << 4;
  update_mode(c);
  trace_far(c);
  return true;
}

bool push_return(Cpu& c, StackFrame& stack, unsigned slot) {
  return frame_push(c, stack, c.seg[kCs].selector, slot) && frame_push(c, stack, c.rip, slot);
}

// A call to an inner level in 32-bit mode: new stack, old SS:ESP, parameters, return address.
bool call_inner(Cpu& c, Target& t) {
  uint16_t selector;
  uint32_t esp;
  Descriptor d;
  if (!stack_from_tss(c, t.cpl, 0, selector, esp) ||
      !check_stack_segment(c, selector, t.cpl, d, {.vector = kInvalidTss}) || !mark_accessed(c, d))
    return false;
  const Segment ss = segment_from(d, selector);
  StackFrame inner = stack_in(ss, esp, t.cpl);
  inner.error = code_of(selector);
  if (!frame_push(c, inner, c.seg[kSs].selector, t.slot) ||
      !frame_push(c, inner, c.regs[kRsp], t.slot))
    return false;
  for (unsigned i = t.copied; i-- > 0;) {
    StackFrame outer = current_stack(c);
    outer.pointer = (outer.pointer + i * t.slot) & outer.mask;
    uint64_t value;
    if (!frame_pop(c, outer, value, t.slot) || !frame_push(c, inner, value, t.slot)) return false;
  }
  if (!push_return(c, inner, t.slot) || !mark_accessed(c, t.code)) return false;
  c.regs[kRsp] = inner.pointer;
  c.seg[kSs] = ss;
  arrive(c, t);
  return true;
}

bool call_inner64(Cpu& c, Target& t) {
  uint64_t rsp;
  if (!stack_from_tss64(c, 4 + 8 * t.cpl, 0, rsp)) return false;
  StackFrame inner;
  inner.pointer = rsp;
  inner.bank = kBankSupervisor;
  if (!frame_push(c, inner, c.seg[kSs].selector, 8) || !frame_push(c, inner, c.regs[kRsp], 8) ||
      !push_return(c, inner, 8) || !mark_accessed(c, t.code))
    return false;
  c.regs[kRsp] = inner.pointer;
  c.seg[kSs] = {.access = static_cast<uint16_t>(t.cpl << 5),
                .selector = static_cast<uint16_t>(t.cpl)};
  arrive(c, t);
  return true;
}

}  // namespace

bool far_jump(Cpu& c, const Op& op) {
  Target t;
  if (!read_pointer(c, op, t)) return false;
  if (!protected_mode(c)) return transfer_real(c, t);
  if (!find_target(c, t, false) || !mark_accessed(c, t.code)) return false;
  arrive(c, t);
  return true;
}

// c.rip is the return address already (end_op).
bool far_call(Cpu& c, const Op& op) {
  Target t;
  if (!read_pointer(c, op, t)) return false;
  StackFrame stack = current_stack(c);
  if (!protected_mode(c)) {
    if (!push_return(c, stack, t.slot) || !transfer_real(c, t)) return false;
    c.regs[kRsp] = merged_pointer(c.regs[kRsp], stack);
    return true;
  }
  if (!find_target(c, t, true)) return false;
  if (t.cpl < c.cpl) return long_mode(c) ? call_inner64(c, t) : call_inner(c, t);
  if (!push_return(c, stack, t.slot) || !mark_accessed(c, t.code)) return false;
  c.regs[kRsp] = merged_pointer(c.regs[kRsp], stack);
  arrive(c, t);
  return true;
}

}  // namespace us::hv
