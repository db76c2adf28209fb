#include "hv/cpu/translate/plan.h"

namespace us::hv {
namespace {

bool is_high_byte(ZydisRegister r) { return r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH; }

bool plain_operands(const Insn& in) {
  for (unsigned i = 0; i < in.visible(); ++i) {
    if (in.is_imm(i) || in.is_xmm(i)) continue;
    if (in.is_gpr(i)) {
      if (is_high_byte(in.reg(i))) return false;
    } else if (!in.is_mem(i)) {
      return false;
    }
  }
  return true;
}

// The memory operand can be reached, and its size is one an access can have.
bool take_memory(const Insn& in, const Op& op, Plan& plan) {
  for (unsigned i = 0; i < in.visible(); ++i) {
    if (!in.is_mem(i)) continue;
    const unsigned size = in.size(i);
    if (in.raw.address_width != 64 || (op.flags & (Op::kAddress32 | Op::kAddress16)) != 0)
      return false;
    if (size != 1 && size != 2 && size != 4 && size != 8 && size != 16) return false;
    const auto& disp = in.operands[i].mem.disp;
    if (disp.has_displacement && disp.value != static_cast<int32_t>(disp.value)) return false;
    plan.memory = static_cast<int>(i);
    plan.stores = (in.operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
  }
  return true;
}

How integer_how(const Insn& in, Plan& plan) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB: plan.reads_flags = true; [[fallthrough]];
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_POPCNT: plan.writes_flags = true; return How::kRewrite;
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC: plan.keeps_some = true; return How::kRewrite;
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_CRC32: return How::kRewrite;
    case ZYDIS_MNEMONIC_MOVSXD: return in.size(0) >= 4 ? How::kRewrite : How::kInterpret;
    case ZYDIS_MNEMONIC_MOV:
      if (in.raw.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (in.raw.opcode & 0xfc) == 0xa0)
        return How::kInterpret;  // the address is an immediate
      return in.is_imm(1) && !in.is_mem(0) ? How::kMoveImmediate : How::kRewrite;
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
      if (in.is_imm(1)) {
        plan.writes_flags = (in.imm(1) & (in.size(0) == 8 ? 63 : 31)) != 0;
        return How::kShiftImmediate;
      }
      plan.keeps_some = true;
      return in.is_mem(0) ? How::kInterpret : How::kShiftCl;
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
      plan.keeps_some = !in.is_imm(1) || (in.imm(1) & (in.size(0) == 8 ? 63 : 31)) != 0;
      return in.is_imm(1) ? How::kShiftImmediate : How::kInterpret;
    case ZYDIS_MNEMONIC_IMUL:
      plan.writes_flags = true;
      return in.visible() >= 2 ? How::kMultiply : How::kMultiplyWide;
    case ZYDIS_MNEMONIC_MUL: plan.writes_flags = true; return How::kMultiplyWide;
    case ZYDIS_MNEMONIC_DIV: return How::kDivide;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      plan.keeps_some = true;
      return in.is_mem(0) && !in.is_imm(1) ? How::kInterpret : How::kBitTest;
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR: plan.writes_flags = true; return How::kBitScan;
    case ZYDIS_MNEMONIC_BSWAP: return How::kByteSwap;
    case ZYDIS_MNEMONIC_XCHG: return How::kExchange;
    case ZYDIS_MNEMONIC_CMPXCHG: plan.writes_flags = true; return How::kCompareExchange;
    case ZYDIS_MNEMONIC_XADD: plan.writes_flags = true; return How::kExchangeAdd;
    default: break;
  }
  const bool two_bytes = in.raw.opcode_map == ZYDIS_OPCODE_MAP_0F;
  const unsigned row = in.raw.opcode & 0xf0;
  if (two_bytes && (row == 0x40 || row == 0x90)) return plan.reads_flags = true, How::kRewrite;
  return How::kInterpret;
}

// Instructions without a visible operand, or with a fixed one.
How implicit_how(const Insn& in, Plan& plan) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW: return How::kNothing;
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO: return How::kExtendAccumulator;
    default: return How::kInterpret;
  }
}

How stack_how(const Insn& in, const Op& op, Plan& plan) {
  if (in.operand_size() != 8 || op.extra != 8) return How::kInterpret;
  How how = How::kInterpret;
  if (in.mnemonic() == ZYDIS_MNEMONIC_PUSH && (in.is_gpr(0) || in.is_imm(0))) how = How::kPush;
  if (in.mnemonic() == ZYDIS_MNEMONIC_POP && in.is_gpr(0)) how = How::kPop;
  if (in.mnemonic() == ZYDIS_MNEMONIC_LEAVE) how = How::kLeave;
  // The operand is the stack: not a visible one, but it can miss all the same.
  if (how != How::kInterpret) plan.memory = 0;
  return how;
}

// Each does on the host what it does on the guest, to the last bit, on every host.
bool same_on_host(ZydisMnemonic m) {
  switch (m) {
#define US_SAME(name) case ZYDIS_MNEMONIC_##name:
#include "hv/cpu/translate/sse_list.h"
#undef US_SAME
    return true;
    default: return false;
  }
}

bool unaligned_allowed(ZydisMnemonic m) {
  return m == ZYDIS_MNEMONIC_MOVUPS || m == ZYDIS_MNEMONIC_MOVUPD || m == ZYDIS_MNEMONIC_MOVDQU ||
         m == ZYDIS_MNEMONIC_LDDQU;
}

How sse_how(const Insn& in, Plan& plan) {
  if ((in.mode.bits & (Mode::kSseOff | Mode::kSseTraps)) != 0) return How::kInterpret;
  if (!same_on_host(in.mnemonic())) return How::kInterpret;
  plan.uses_xmm = true;
  plan.aligned = plan.memory >= 0 && in.size(static_cast<unsigned>(plan.memory)) == 16 &&
                 !unaligned_allowed(in.mnemonic());
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_COMISS:
    case ZYDIS_MNEMONIC_COMISD:
    case ZYDIS_MNEMONIC_UCOMISS:
    case ZYDIS_MNEMONIC_UCOMISD:
    case ZYDIS_MNEMONIC_PTEST: plan.writes_flags = true; break;
    default: break;
  }
  return How::kRewrite;
}

bool has_xmm(const Insn& in) {
  for (unsigned i = 0; i < in.visible(); ++i)
    if (in.is_xmm(i)) return true;
  return false;
}

Plan decide(const Insn& in, const Op& op) {
  Plan plan;
  if (in.raw.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return {};
  plan.how = implicit_how(in, plan);
  if (plan.how != How::kInterpret) return plan;
  plan.how = stack_how(in, op, plan);
  if (plan.how != How::kInterpret) return plan;
  if (!plain_operands(in)) return {};
  if (in.mnemonic() == ZYDIS_MNEMONIC_LEA) {
    const bool simple = in.raw.address_width == 64 && in.size(0) >= 4;
    return {.how = simple ? How::kLea : How::kInterpret};
  }
  if (!take_memory(in, op, plan)) return {};
  plan.how = has_xmm(in) ? sse_how(in, plan) : integer_how(in, plan);
  return plan;
}

}  // namespace

Plan plan_of(const Insn& in, const Op& op) {
  const Plan plan = decide(in, op);
  return plan.how == How::kInterpret ? Plan{} : plan;
}

unsigned gpr_of(const Insn& in, unsigned i) {
  if (in.is_gpr(i) && in.size(i) == 1) return in.number(i) / 8u;
  return static_cast<unsigned>(ZydisRegisterGetId(in.reg(i)));
}

}  // namespace us::hv
