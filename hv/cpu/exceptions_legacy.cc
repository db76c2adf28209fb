// Delivery in 32- and 16-bit protected mode (SDM 3A 6.12) and in real mode (SDM 3B 21.1.4). Task
// gates are refused with #GP; virtual-8086 mode does not exist here.
#include "hv/cpu/system.h"

namespace us::hv {
namespace {

struct Gate {
  Descriptor d;
  unsigned slot = 4;  // bytes a pushed value takes
  uint32_t offset = 0;
  bool interrupt = false;
};

bool read_gate(Cpu& c, const Event& event, Gate& gate) {
  const uint32_t error = event.vector * 8u | 2u | event.ext();
  if (event.vector * 8u + 7u > c.idtr.limit) return raise(c, kGeneralProtection, error);
  if (!read_system(c, c.idtr.base + event.vector * 8u, &gate.d.low, 8)) return false;
  const unsigned type = gate.d.type();
  // 16-bit interrupt and trap gates are 6 and 7, 32-bit ones 14 and 15. SDM 3A table 3-2.
  if (!gate.d.is_system() || (type & 6) != 6 ||
      (event.kind == EventKind::kSoftware && gate.d.dpl() < c.cpl))
    return raise(c, kGeneralProtection, error);
  if (!gate.d.present()) return raise(c, kSegmentNotPresent, error);
  gate.slot = (type & 8) != 0 ? 4 : 2;
  gate.offset = gate.slot == 4 ? gate.d.gate_offset() : gate.d.gate_offset() & 0xffff;
  gate.interrupt = (type & 1) == 0;
  return true;
}

bool check_target(Cpu& c, const Event& event, const Gate& gate, Descriptor& code) {
  const uint16_t selector = gate.d.gate_selector();
  const uint32_t error = (selector & 0xfffcu) | event.ext();
  if (is_null(selector)) return raise(c, kGeneralProtection, event.ext());
  if (!read_descriptor(c, selector, code, {.ext = event.ext()})) return false;
  if (!code.is_code() || code.dpl() > c.cpl) return raise(c, kGeneralProtection, error);
  if (!code.present()) return raise(c, kSegmentNotPresent, error);
  return gate.offset <= segment_from(code, selector).limit ||
         raise(c, kGeneralProtection, event.ext());
}

// The stack of inner privilege `cpl`, from the TSS.
bool inner_stack(Cpu& c, unsigned cpl, uint32_t ext, Segment& ss, StackFrame& frame) {
  uint16_t selector;
  uint32_t esp;
  if (!stack_from_tss(c, cpl, ext, selector, esp)) return false;
  Descriptor d;
  if (!check_stack_segment(c, selector, cpl, d, {.vector = kInvalidTss, .ext = ext}) ||
      !mark_accessed(c, d))
    return false;
  ss = segment_from(d, selector);
  frame = stack_in(ss, esp, cpl);
  frame.error = (selector & 0xfffcu) | ext;
  return true;
}

bool push_all(Cpu& c, StackFrame& frame, const uint64_t* values, unsigned count, unsigned slot) {
  for (unsigned i = 0; i < count; ++i)
    if (!frame_push(c, frame, values[i], slot)) return false;
  return true;
}

}  // namespace

bool stack_from_tss(Cpu& c, unsigned cpl, uint32_t ext, uint16_t& ss, uint32_t& esp) {
  const bool wide = (c.tr.type() & 8) != 0;  // SDM 3A 8.2.1, 8.6
  const unsigned offset = wide ? 4 + 8 * cpl : 2 + 4 * cpl;
  const unsigned bytes = wide ? 6 : 4;
  if (!c.tr.usable() || offset + bytes - 1 > c.tr.limit)
    return raise(c, kInvalidTss, (c.tr.selector & 0xfffcu) | ext);
  uint64_t both = 0;
  if (!read_system(c, c.tr.base + offset, &both, bytes)) return false;
  esp = static_cast<uint32_t>(wide ? both : both & 0xffff);
  ss = static_cast<uint16_t>(both >> (wide ? 32 : 16));
  return true;
}

bool deliver_protected(Cpu& c, const Event& event, uint64_t return_rip) {
  Gate gate;
  Descriptor code;
  if (!read_gate(c, event, gate) || !check_target(c, event, gate, code)) return false;
  const unsigned cpl = code.conforming() ? c.cpl : code.dpl();
  const bool inner = cpl < c.cpl;
  Segment ss = c.seg[kSs];
  StackFrame frame = current_stack(c);
  frame.bank = cpl == 3 ? kBankUser : kBankSupervisor;
  frame.error = event.ext();
  if (inner && !inner_stack(c, cpl, event.ext(), ss, frame)) return false;
  if (!mark_accessed(c, code)) return false;

  const uint64_t values[6] = {c.seg[kSs].selector, c.regs[kRsp], saved_flags(c, event),
                              c.seg[kCs].selector, return_rip,   event.error};
  const unsigned first = inner ? 0 : 2;
  const unsigned last = event.has_error ? 6 : 5;
  if (!push_all(c, frame, values + first, last - first, gate.slot)) return false;

  c.regs[kRsp] = inner ? frame.pointer : merged_pointer(c.regs[kRsp], frame);
  c.seg[kSs] = ss;
  c.rip = gate.offset;
  enter_handler_flags(c, gate.interrupt);
  install_code(c, code, gate.d.gate_selector(), cpl);
  if (event.vector == kDebug) c.dr7 &= ~(uint64_t{1} << 13);
  return true;
}

bool deliver_real(Cpu& c, const Event& event, uint64_t return_rip) {
  if (event.vector * 4u + 3u > c.idtr.limit) return raise(c, kGeneralProtection, 0);
  uint32_t target;
  if (!read_system(c, c.idtr.base + event.vector * 4u, &target, 4)) return false;
  StackFrame frame = current_stack(c);
  const uint64_t values[3] = {rflags(c), c.seg[kCs].selector, return_rip};
  if (!push_all(c, frame, values, 3, 2)) return false;
  c.regs[kRsp] = merged_pointer(c.regs[kRsp], frame);
  c.rip = target & 0xffff;
  c.seg[kCs].selector = static_cast<uint16_t>(target >> 16);
  c.seg[kCs].base = uint64_t{c.seg[kCs].selector} << 4;
  c.rflags_other &= ~(flag::kIf | flag::kTf | flag::kRf | flag::kAc);
  update_mode(c);
  return true;
}

}  // namespace us::hv
