#include "hv/cpu/system.h"

namespace us::hv {
namespace {

bool slot_address(Cpu& c, const StackFrame& s, uint64_t pointer, unsigned size, uint64_t& linear) {
  linear = s.base + pointer;
  if (!s.checked) return canonical(linear) || raise(c, kStackFault, s.error);
  linear = static_cast<uint32_t>(linear);
  const uint64_t last = pointer + size - 1;
  const bool inside =
      s.expand_down ? pointer > s.limit && last <= (s.big ? 0xffff'ffff : 0xffff) : last <= s.limit;
  return inside || raise(c, kStackFault, s.error);
}

}  // namespace

StackFrame stack_in(const Segment& ss, uint64_t pointer, unsigned cpl) {
  StackFrame s;
  s.base = ss.base;
  s.mask = ss.big() ? 0xffff'ffff : 0xffff;
  s.pointer = pointer & s.mask;
  s.limit = ss.limit;
  s.expand_down = (ss.access & Segment::kExpandDown) != 0;
  s.big = ss.big();
  s.checked = true;
  s.bank = cpl == 3 ? kBankUser : kBankSupervisor;
  return s;
}

StackFrame current_stack(const Cpu& c) {
  StackFrame s;
  if (c.mode.is64()) {
    s.pointer = c.regs[kRsp];
  } else {
    s = stack_in(c.seg[kSs], c.regs[kRsp], c.cpl);
  }
  s.bank = current_bank(c);
  return s;
}

bool frame_push(Cpu& c, StackFrame& s, uint64_t value, unsigned size) {
  const uint64_t pointer = (s.pointer - size) & s.mask;
  uint64_t linear;
  if (!slot_address(c, s, pointer, size, linear)) return false;
  if (!write_through(c, s.bank, linear, &value, size)) return false;
  s.pointer = pointer;
  return true;
}

bool frame_pop(Cpu& c, StackFrame& s, uint64_t& value, unsigned size) {
  uint64_t linear;
  if (!slot_address(c, s, s.pointer, size, linear)) return false;
  value = 0;
  if (!read_through(c, s.bank, linear, &value, size)) return false;
  if (size < 8) value &= (uint64_t{1} << (8 * size)) - 1;
  s.pointer = (s.pointer + size) & s.mask;
  return true;
}

uint64_t merged_pointer(uint64_t old, const StackFrame& s) {
  return s.mask == 0xffff ? (old & ~s.mask) | s.pointer : s.pointer;
}

}  // namespace us::hv
