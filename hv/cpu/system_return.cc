// IRET in all its forms and far RET. SDM 2A "IRET", 2B "RET", SDM 3A 5.8, 6.12-6.14.
#include "hv/cpu/debug.h"
#include "hv/cpu/system_instructions.h"
#include "hv/cpu/trace.h"

namespace us::hv {
namespace {

uint32_t code_of(uint16_t selector) { return selector & 0xfffcu; }

// What a return pops, and where that leads.
struct Return {
  uint64_t rip = 0, flags = 0, rsp = 0;
  uint64_t cs = 0, ss = 0;
  bool stack_too = false;
  Descriptor code, stack;
  unsigned cpl() const { return rpl_of(static_cast<uint16_t>(cs)); }
};

void return_flags(Cpu& c, uint64_t value, unsigned size) {
  uint64_t mask = flag::kArithmetic | flag::kTf | flag::kDf | flag::kNt;
  // RF matters only where breakpoints are armed; elsewhere it would stay set for no instruction to
  // consume, as blocks do not clear it.
  const bool keeps_rf = (c.dr7 & 0xff) != 0 || c.intercepts.resume_flag;
  if (size > 2) mask |= flag::kAc | flag::kId | (keeps_rf ? flag::kRf : 0);
  if (c.cpl <= iopl(c)) mask |= flag::kIf;
  if (c.cpl == 0) mask |= flag::kIopl;
  c.rflags_other &= ~flag::kRf;
  write_rflags(c, value, mask);
}

// The whole check and the whole change, after everything was popped. `stack`: where the stack
// pointer ends if the stack is not replaced.
bool check_return(Cpu& c, Return& r) {
  const auto cs = static_cast<uint16_t>(r.cs);
  const auto ss = static_cast<uint16_t>(r.ss);
  if (!check_return_code(c, cs, r.code) || !check_entry_offset(c, r.code, r.rip)) return false;
  const bool to64 = long_mode(c) && r.code.is_long();
  if (r.stack_too && !check_return_stack(c, ss, r.cpl(), to64, r.stack)) return false;
  return mark_accessed(c, r.code) && (!r.stack_too || is_null(ss) || mark_accessed(c, r.stack));
}

void commit_return(Cpu& c, const Return& r, const StackFrame& stack, uint64_t released) {
  const bool outer = r.cpl() > c.cpl;
  const bool to64 = long_mode(c) && r.code.is_long();
  c.rip = to64 ? r.rip : static_cast<uint32_t>(r.rip);
  if (r.stack_too) {
    install_stack(c, r.stack, static_cast<uint16_t>(r.ss));
    const bool big = to64 || c.seg[kSs].big();
    const uint64_t rsp = r.rsp + released;
    c.regs[kRsp] = to64  ? rsp
                   : big ? static_cast<uint32_t>(rsp)
                         : (c.regs[kRsp] & ~uint64_t{0xffff}) | (rsp & 0xffff);
  } else {
    c.regs[kRsp] = merged_pointer(c.regs[kRsp], stack);
  }
  install_code(c, r.code, static_cast<uint16_t>(r.cs), r.cpl());
  if (outer) drop_inner_segments(c);
  trace_far(c);
}

bool pop_stack_part(Cpu& c, Return& r, StackFrame& stack, unsigned size) {
  r.stack_too = true;
  if (!frame_pop(c, stack, r.rsp, size) || !frame_pop(c, stack, r.ss, size)) return false;
  r.ss &= 0xffff;
  return true;
}

// The common case: 64-bit mode, IRETQ, five words in one page.
bool pop_five_words(Cpu& c, Return& r) {
  const uint8_t* at = direct_read(c, c.regs[kRsp], 40);
  if (at == nullptr) return false;
  uint64_t words[5];
  std::memcpy(words, at, sizeof words);
  r.rip = words[0];
  r.cs = words[1] & 0xffff;
  r.flags = words[2];
  r.rsp = words[3];
  r.ss = words[4] & 0xffff;
  r.stack_too = true;
  return true;
}

bool pop_interrupt_frame(Cpu& c, Return& r, StackFrame& stack, unsigned size) {
  if (size == 8 && c.mode.is64() && pop_five_words(c, r)) return true;
  if (!frame_pop(c, stack, r.rip, size) || !frame_pop(c, stack, r.cs, size) ||
      !frame_pop(c, stack, r.flags, size))
    return false;
  r.cs &= 0xffff;
  // 64-bit mode always pops the stack; elsewhere only a return to an outer level does.
  return (!c.mode.is64() && r.cpl() <= c.cpl) || pop_stack_part(c, r, stack, size);
}

void end_interrupt(Cpu& c) {
  c.nmi_blocked = false;
  c.interrupt_shadow = false;
}

bool return_real(Cpu& c, unsigned size) {
  StackFrame stack = current_stack(c);
  uint64_t rip, cs, flags;
  if (!frame_pop(c, stack, rip, size) || !frame_pop(c, stack, cs, size) ||
      !frame_pop(c, stack, flags, size))
    return false;
  if (rip > c.seg[kCs].limit) return raise(c, kGeneralProtection, 0);
  c.rip = rip;
  c.seg[kCs].selector = static_cast<uint16_t>(cs);
  c.seg[kCs].base = (cs & 0xffff) << 4;
  c.regs[kRsp] = merged_pointer(c.regs[kRsp], stack);
  return_flags(c, flags, size);
  update_mode(c);
  trace_far(c);
  end_interrupt(c);
  return true;
}

bool far_return_real(Cpu& c, const Op& op, unsigned size) {
  StackFrame stack = current_stack(c);
  uint64_t rip, cs;
  if (!frame_pop(c, stack, rip, size) || !frame_pop(c, stack, cs, size)) return false;
  if (rip > c.seg[kCs].limit) return raise(c, kGeneralProtection, 0);
  stack.pointer = (stack.pointer + op.imm) & stack.mask;
  c.rip = rip;
  c.seg[kCs].selector = static_cast<uint16_t>(cs);
  c.seg[kCs].base = (cs & 0xffff) << 4;
  c.regs[kRsp] = merged_pointer(c.regs[kRsp], stack);
  update_mode(c);
  trace_far(c);
  return true;
}

}  // namespace

bool check_return_code(Cpu& c, uint16_t selector, Descriptor& out) {
  if (is_null(selector)) return raise(c, kGeneralProtection, 0);
  const unsigned rpl = rpl_of(selector);
  if (!read_descriptor(c, selector, out)) return false;
  const bool both_sizes = long_mode(c) && out.is_long() && out.big();
  const bool privilege = out.conforming() ? out.dpl() <= rpl : out.dpl() == rpl;
  if (rpl < c.cpl || !out.is_code() || !privilege || both_sizes)
    return raise(c, kGeneralProtection, code_of(selector));
  return out.present() || raise(c, kSegmentNotPresent, code_of(selector));
}

bool check_entry_offset(Cpu& c, const Descriptor& code, uint64_t offset) {
  const bool fits =
      long_mode(c) && code.is_long() ? canonical(offset) : offset <= segment_from(code, 0).limit;
  return fits || raise(c, kGeneralProtection, 0);
}

bool check_return_stack(Cpu& c, uint16_t selector, unsigned cpl, bool to64, Descriptor& out) {
  if (!is_null(selector)) return check_stack_segment(c, selector, cpl, out, {});
  return (to64 && cpl != 3 && rpl_of(selector) == cpl) || raise(c, kGeneralProtection, 0);
}

void install_stack(Cpu& c, const Descriptor& d, uint16_t selector) {
  if (!is_null(selector)) {
    c.seg[kSs] = segment_from(d, selector);
    return;
  }
  c.seg[kSs] = {.access = static_cast<uint16_t>(rpl_of(selector) << 5), .selector = selector};
}

bool interrupt_return(Cpu& c, const Op& op) {
  const unsigned size = op.extra;
  if (!protected_mode(c)) return return_real(c, size);
  // NT asks for a task switch (none here), VM for virtual-8086 mode (none here).
  if ((c.rflags_other & flag::kNt) != 0) return raise(c, kGeneralProtection, 0);
  Return r;
  StackFrame stack = current_stack(c);
  if (!pop_interrupt_frame(c, r, stack, size)) return false;
  if (!long_mode(c) && size > 2 && c.cpl == 0 && (r.flags & flag::kVm) != 0)
    return raise(c, kGeneralProtection, 0);
  if (!check_return(c, r)) return false;
  return_flags(c, r.flags, size);
  commit_return(c, r, stack, 0);
  end_interrupt(c);
  return true;
}

bool far_return(Cpu& c, const Op& op) {
  const unsigned size = op.extra;
  if (!protected_mode(c)) return far_return_real(c, op, size);
  Return r;
  StackFrame stack = current_stack(c);
  if (!frame_pop(c, stack, r.rip, size) || !frame_pop(c, stack, r.cs, size)) return false;
  r.cs &= 0xffff;
  stack.pointer = (stack.pointer + op.imm) & stack.mask;
  if (r.cpl() > c.cpl && !pop_stack_part(c, r, stack, size)) return false;
  if (!check_return(c, r)) return false;
  commit_return(c, r, stack, op.imm);
  return true;
}

}  // namespace us::hv
