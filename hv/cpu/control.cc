// Jumps, calls, returns, conditional branches and loops. SDM 1 6.4, 7.3.8.
#include "hv/cpu/control.h"

#include <array>
#include <utility>

#include "hv/cpu/follow.h"
#include "hv/cpu/insn.h"
#include "hv/cpu/stack.h"
#include "hv/cpu/trace.h"

namespace us::hv {

const Op* follow_slowly(Cpu& c, const Op* op) {
  Block** slot = c.link_slot;
  const Links& links = links_of(op);
  const uint64_t bit = slot == &links.taken ? 1 : 2;
  const bool may_link = (links.may_link & bit) != 0;
  if (!must_stop(c) && c.mode.is64()) {
    if (Block* next = quick_find(c, c.regs[kRipBase])) {
      // Where a second page lies has to be looked up each time.
      if (may_link && !next->crosses_page) *slot = next;
      US_GOTO(c, next->ops);
    }
  }
  c.rip = c.regs[kRipBase];
  c.exit = Exit::kContinue;
  c.link_slot = may_link ? slot : nullptr;
  return nullptr;
}

namespace {

// --- Direct
// -----------------------------------------------------------------------------------------

template <bool k64>
const Op* fall_through(Cpu& c, const Op* op) {
  c.instructions += op->ordinal;
  US_FOLLOW(c, op, wrap_rip<k64>(c.regs[kRipBase] + op->imm, op), links_of(op).fall_through);
}

template <bool k64>
const Op* jump(Cpu& c, const Op* op) {
  c.instructions += op->ordinal + 1;
  US_FOLLOW(c, op, wrap_rip<k64>(c.regs[kRipBase] + op->imm, op), links_of(op).taken);
}

template <unsigned kCode, bool k64, bool kTrace>
const Op* conditional_jump(Cpu& c, const Op* op) {
  count_branch(c, op, 1);
  const bool taken = condition<kCode>(c);
  if constexpr (kTrace) trace_conditional(c, taken);
  US_BRANCH(c, op, taken, k64, op->imm, op->offset + op->length);
}

// LOOP, LOOPE, LOOPNE (extra 0-2) and JCXZ/JECXZ/JRCXZ (extra 3); the count register has the
// address size. They retire as conditional branches too.
bool loop_taken(Cpu& c, const Op* op) {
  const uint64_t mask = (op->flags & Op::kAddress32)   ? 0xffff'ffff
                        : (op->flags & Op::kAddress16) ? 0xffff
                                                       : ~uint64_t{0};
  uint64_t& rcx = c.regs[kRcx];
  if (op->extra == 3) return (rcx & mask) == 0;
  const uint64_t count = (rcx - 1) & mask;
  rcx = mask == 0xffff ? (rcx & ~mask) | count : count;
  if (op->extra == 1) return count != 0 && zf(c);
  if (op->extra == 2) return count != 0 && !zf(c);
  return count != 0;
}

// The operand size decides how RIP wraps, the address size which register counts, so the wrapped
// target is precomputed in seg (the field is free here): 1 means 16 bits.
inline uint64_t wrap_loop(uint64_t rip, const Op* op, bool is64) {
  if (is64) return rip;
  return op->seg ? rip & 0xffff : rip & 0xffff'ffff;
}

template <bool k64, bool kTrace>
const Op* loop(Cpu& c, const Op* op) {
  count_branch(c, op, 1);
  const bool taken = loop_taken(c, op);
  if constexpr (kTrace) trace_conditional(c, taken);
  if (taken) US_FOLLOW(c, op, wrap_loop(c.regs[kRipBase] + op->imm, op, k64), links_of(op).taken);
  US_FOLLOW(c, op, wrap_loop(c.regs[kRipBase] + op->offset + op->length, op, k64),
            links_of(op).fall_through);
}

// --- Calls and returns
// ------------------------------------------------------------------------------

// A near target must be canonical (64-bit) or inside CS (else). SDM 2A "CALL", 64-bit exceptions.
bool target_allowed(Cpu& c, uint64_t target) {
  if (c.mode.is64()) {
    const auto top = static_cast<int64_t>(target) >> 47;
    if (top == 0 || top == -1) return true;
  } else if (target <= c.seg[kCs].limit) {
    return true;
  }
  return raise(c, kGeneralProtection, 0);
}

// Everything not 64-bit, and the slow cases of 64-bit: extra holds the operand size in bytes.
template <bool kTrace>
bool call_to(Cpu& c, const Op& op, uint64_t target, bool indirect) {
  if (op.extra == 2) target &= 0xffff;
  if (op.extra == 4) target &= 0xffff'ffff;
  if (!target_allowed(c, target) || !push_value(c, next_rip(c, op), op.extra)) return false;
  if constexpr (kTrace) {
    if (indirect) trace_indirect(c, target);
  }
  c.rip = target;
  return true;
}
bool call_direct_slow(Cpu& c, const Op& op) {
  return call_to<false>(c, op, c.regs[kRipBase] + op.imm, false);
}

const Op* call_direct64(Cpu& c, const Op* op) {
  const uint64_t sp = c.regs[kRsp] - 8;
  uint8_t* at = direct_write(c, sp, 8);
  if (US_UNLIKELY(at == nullptr)) US_TAIL return end_op<call_direct_slow>(c, op);
  write_host<uint64_t>(at, next_rip(c, *op));
  c.regs[kRsp] = sp;
  c.instructions += op->ordinal + 1;
  US_FOLLOW(c, op, c.regs[kRipBase] + op->imm, links_of(op).taken);
}

// RET imm16 lets go of its arguments; the stack pointer wraps at the stack's width.
void release_stack(Cpu& c, uint64_t bytes) {
  uint64_t& sp = c.regs[kRsp];
  if (c.mode.is64()) {
    sp += bytes;
  } else if (c.mode.bits & Mode::kStack32) {
    sp = static_cast<uint32_t>(sp + bytes);
  } else {
    sp = (sp & ~uint64_t{0xffff}) | ((sp + bytes) & 0xffff);
  }
}

template <bool kTrace>
bool return_slow(Cpu& c, const Op& op) {
  const uint64_t sp = c.regs[kRsp];
  uint64_t target;
  if (!pop_value(c, target, op.extra)) return false;
  if (!target_allowed(c, target)) {
    c.regs[kRsp] = sp;
    return false;
  }
  release_stack(c, op.imm);
  if constexpr (kTrace) trace_indirect(c, target);
  c.rip = target;
  return true;
}

template <bool kTrace>
const Op* return64(Cpu& c, const Op* op) {
  const uint8_t* at = direct_read(c, c.regs[kRsp], 8);
  if (US_UNLIKELY(at == nullptr)) US_TAIL return end_op<return_slow<kTrace>>(c, op);
  const uint64_t target = read_host<uint64_t>(at);
  Block* next = quick_find(c, target);
  if (US_UNLIKELY(next == nullptr || must_stop(c)))
    US_TAIL return end_op<return_slow<kTrace>>(c, op);
  if constexpr (kTrace) trace_indirect64(c, target);
  c.regs[kRsp] += 8 + op->imm;
  c.instructions += op->ordinal + 1;
  c.regs[kRipBase] = target;
  US_GOTO(c, next->ops);
}

// --- Indirect
// ---------------------------------------------------------------------------------------

bool indirect_target(Cpu& c, const Op& op, bool memory, uint64_t& target) {
  if (!memory) {
    target = c.regs[op.dst];
  } else {
    const Address a = c.mode.is64() && !(op.flags & (Op::kBased64 | Op::kAddress32))
                          ? Address{flat_address(c, &op), true}
                          : general_address_of(c, &op, op.extra, Access::kRead);
    if (!a.ok) return false;
    target = 0;
    if (!load_slow(c, a.linear, &target, op.extra)) return false;
  }
  if (op.extra == 2) target &= 0xffff;
  if (op.extra == 4) target &= 0xffff'ffff;
  return true;
}

template <bool kMemory, bool kTrace>
bool jump_indirect_slow(Cpu& c, const Op& op) {
  uint64_t target;
  if (!indirect_target(c, op, kMemory, target) || !target_allowed(c, target)) return false;
  if constexpr (kTrace) trace_indirect(c, target);
  c.rip = target;
  return true;
}
template <bool kMemory, bool kTrace>
bool call_indirect_slow(Cpu& c, const Op& op) {
  uint64_t target;
  return indirect_target(c, op, kMemory, target) && call_to<kTrace>(c, op, target, true);
}

// 64-bit, flat: the target if it can be had without a call, found in the caches.
template <bool kMemory>
inline Block* quick_target(Cpu& c, const Op* op, uint64_t& target) {
  if constexpr (kMemory) {
    const uint8_t* at = direct_read(c, flat_address(c, op), 8);
    if (US_UNLIKELY(at == nullptr)) return nullptr;
    target = read_host<uint64_t>(at);
  } else {
    target = c.regs[op->dst];
  }
  return must_stop(c) ? nullptr : quick_find(c, target);
}

template <bool kMemory, bool kTrace>
const Op* jump_indirect64(Cpu& c, const Op* op) {
  uint64_t target = 0;
  Block* next = quick_target<kMemory>(c, op, target);
  if (US_UNLIKELY(next == nullptr))
    US_TAIL return end_op<jump_indirect_slow<kMemory, kTrace>>(c, op);
  if constexpr (kTrace) trace_indirect64(c, target);
  c.instructions += op->ordinal + 1;
  c.regs[kRipBase] = target;
  US_GOTO(c, next->ops);
}

template <bool kMemory, bool kTrace>
const Op* call_indirect64(Cpu& c, const Op* op) {
  uint64_t target = 0;
  Block* next = quick_target<kMemory>(c, op, target);
  const uint64_t sp = c.regs[kRsp] - 8;
  uint8_t* at = direct_write(c, sp, 8);
  if (US_UNLIKELY(next == nullptr || at == nullptr))
    US_TAIL return end_op<call_indirect_slow<kMemory, kTrace>>(c, op);
  if constexpr (kTrace) trace_indirect64(c, target);
  write_host<uint64_t>(at, next_rip(c, *op));
  c.regs[kRsp] = sp;
  c.instructions += op->ordinal + 1;
  c.regs[kRipBase] = target;
  US_GOTO(c, next->ops);
}

// --- Selection
// --------------------------------------------------------------------------------------

template <bool k64, bool kTrace, size_t... kCodes>
constexpr auto jump_table(std::index_sequence<kCodes...>) {
  return std::array<Handler, 16>{&conditional_jump<kCodes, k64, kTrace>...};
}
constexpr auto kSixteen = std::make_index_sequence<16>{};
constexpr std::array<Handler, 16> kConditional[2][2] = {
    {jump_table<false, false>(kSixteen), jump_table<false, true>(kSixteen)},
    {jump_table<true, false>(kSixteen), jump_table<true, true>(kSixteen)}};

Selection select_indirect(const Insn& in, Op& op, bool call) {
  const bool memory = in.is_mem(0);
  const bool trace = in.mode.bits & Mode::kTrace;
  if (memory) {
    set_memory(op, in, 0);
  } else {
    op.dst = in.number(0);
  }
  op.extra = static_cast<uint8_t>(in.size(0));
  if (in.mode.is64() && op.extra == 8 && (!memory || in.flat())) {
    static constexpr Handler kFast[2][2][2] = {
        {{&jump_indirect64<false, false>, &jump_indirect64<false, true>},
         {&jump_indirect64<true, false>, &jump_indirect64<true, true>}},
        {{&call_indirect64<false, false>, &call_indirect64<false, true>},
         {&call_indirect64<true, false>, &call_indirect64<true, true>}}};
    return {.fn = kFast[call][memory][trace], .ends_block = true};
  }
  static constexpr Handler kSlow[2][2][2] = {
      {{&end_op<jump_indirect_slow<false, false>>, &end_op<jump_indirect_slow<false, true>>},
       {&end_op<jump_indirect_slow<true, false>>, &end_op<jump_indirect_slow<true, true>>}},
      {{&end_op<call_indirect_slow<false, false>>, &end_op<call_indirect_slow<false, true>>},
       {&end_op<call_indirect_slow<true, false>>, &end_op<call_indirect_slow<true, true>>}}};
  return {.fn = kSlow[call][memory][trace], .ends_block = true};
}

bool far_form(const Insn& in) {
  return in.raw.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ||
         (in.visible() > 0 && in.operands[0].type == ZYDIS_OPERAND_TYPE_POINTER);
}

Selection select_call(const Insn& in, Op& op) {
  if (!in.is_imm(0)) return select_indirect(in, op, true);
  op.imm = static_cast<uint64_t>(direct_target_offset(in));
  op.extra = in.mode.is64() ? 8 : static_cast<uint8_t>(in.operand_size());
  return {.fn = in.mode.is64() ? &call_direct64 : &end_op<call_direct_slow>, .ends_block = true};
}

Selection select_jump(const Insn& in, Op& op) {
  if (!in.is_imm(0)) return select_indirect(in, op, false);
  op.imm = static_cast<uint64_t>(direct_target_offset(in));
  return {.fn = in.mode.is64() ? &jump<true> : &jump<false>, .ends_block = true};
}

Selection select_return(const Insn& in, Op& op) {
  const bool trace = in.mode.bits & Mode::kTrace;
  op.imm = in.is_imm(0) ? in.imm(0) & 0xffff : 0;
  op.extra = in.mode.is64() ? 8 : static_cast<uint8_t>(in.operand_size());
  if (in.mode.is64()) return {.fn = trace ? &return64<true> : &return64<false>, .ends_block = true};
  return {.fn = trace ? &end_op<return_slow<true>> : &end_op<return_slow<false>>,
          .ends_block = true};
}

Selection select_conditional(const Insn& in, Op& op) {
  const bool trace = in.mode.bits & Mode::kTrace;
  op.imm = static_cast<uint64_t>(direct_target_offset(in));
  int kind = -1;
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_LOOP: kind = 0; break;
    case ZYDIS_MNEMONIC_LOOPE: kind = 1; break;
    case ZYDIS_MNEMONIC_LOOPNE: kind = 2; break;
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: kind = 3; break;
    default: break;
  }
  if (kind < 0)
    return {.fn = kConditional[in.mode.is64()][trace][in.raw.opcode & 0xf], .ends_block = true};
  op.extra = static_cast<uint8_t>(kind);
  op.seg = op.flags & Op::kAddress16 ? 1 : 0;
  op.flags = in.raw.address_width == 16   ? Op::kAddress16
             : in.raw.address_width == 32 ? Op::kAddress32
                                          : 0;
  static constexpr Handler kLoops[2][2] = {{&loop<false, false>, &loop<false, true>},
                                           {&loop<true, false>, &loop<true, true>}};
  return {.fn = kLoops[in.mode.is64()][trace], .ends_block = true};
}

}  // namespace

Handler fall_through_handler(Mode mode) {
  return mode.is64() ? &fall_through<true> : &fall_through<false>;
}

int64_t direct_target_offset(const Insn& in) {
  constexpr int64_t kNowhere = int64_t{1} << 40;
  if (in.visible() == 0 || !in.is_imm(0) || !in.operands[0].imm.is_relative) return kNowhere;
  return in.operands[0].imm.value.s + in.offset + in.raw.length;
}

Selection select_control(const Insn& in, Op& op) {
  if (far_form(in)) return {};
  // Outside 64-bit mode a 16-bit operand size cuts the new instruction pointer.
  if (!in.mode.is64() && in.operand_size() == 2) op.flags |= Op::kAddress16;
  Selection selection;
  switch (in.raw.meta.category) {
    case ZYDIS_CATEGORY_CALL: selection = select_call(in, op); break;
    case ZYDIS_CATEGORY_UNCOND_BR: selection = select_jump(in, op); break;
    case ZYDIS_CATEGORY_COND_BR: selection = select_conditional(in, op); break;
    case ZYDIS_CATEGORY_RET:
      if (in.mnemonic() == ZYDIS_MNEMONIC_RET) selection = select_return(in, op);
      break;
    default: break;
  }
  if (selection.fn == nullptr)
    op = Op{.offset = op.offset, .length = op.length, .ordinal = op.ordinal};
  return selection;
}

}  // namespace us::hv
