// Integer instructions whose operands are all visible, and SSE, which goes the same way.
#include "hv/cpu/translate/unit.h"

namespace us::hv {

using namespace Xbyak;

namespace {

bool in_modrm_reg(const Insn& in, unsigned i) {
  return in.operands[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
}
bool reads(const Insn& in, unsigned i) {
  return (in.operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
}
bool writes(const Insn& in, unsigned i) {
  return (in.operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}
// Part of the register keeps its value, or all of it may.
bool keeps_old(const Insn& in, unsigned i) {
  return in.size(i) < 4 || reads(in, i) ||
         (in.operands[i].actions & ZYDIS_OPERAND_ACTION_CONDWRITE) != 0;
}

// ADD AL, imm8 to CMP EAX, imm32 and TEST AL/EAX, imm name their register by the opcode.
bool names_accumulator(const Insn& in) {
  if (in.raw.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) return false;
  const unsigned opcode = in.raw.opcode;
  return (opcode < 0x40 && (opcode & 6) == 4) || (opcode & 0xfe) == 0xa8;
}
Insn with_modrm(const Insn& in) {
  Insn out = in;
  const bool wide = (in.raw.opcode & 1) != 0;
  if ((in.raw.opcode & 0xfe) == 0xa8) {
    out.raw.raw.modrm.reg = 0;
    out.raw.opcode = wide ? 0xf7 : 0xf6;
  } else {
    out.raw.raw.modrm.reg = in.raw.opcode >> 3;
    out.raw.opcode = wide ? 0x81 : 0x80;
  }
  out.operands[0].encoding = ZYDIS_OPERAND_ENCODING_MODRM_RM;
  return out;
}

}  // namespace

// Writes `in` with its guest registers in host registers; a memory operand is at `memory_base`.
// Registers that are not mapped pass through RCX (ModRM.reg) and RDX (ModRM.rm).
void Unit::operate(const Insn& given, const Plan& plan, int memory_base, int immediate) {
  const Insn in = names_accumulator(given) ? with_modrm(given) : given;
  int extension = in.raw.raw.modrm.reg;
  RmOperand rm;
  struct Back {
    unsigned guest;
    int scratch;
  };
  Back back[2];
  unsigned backs = 0;
  for (unsigned i = 0; i < in.visible(); ++i) {
    if (in.is_imm(i)) continue;
    if (in.is_mem(i)) {
      rm = {.memory = true, .reg = memory_base};
      continue;
    }
    const unsigned number = gpr_of(in, i);
    const bool reg_field = in_modrm_reg(in, i);
    // Counts in CL are not among those that come here.
    if (!reg_field && in.operands[i].encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM) continue;
    int used = static_cast<int>(number);
    if (in.is_gpr(i)) {
      used = mapped(number) ? kHostOf[number] : reg_field ? 1 : 2;
      if (!mapped(number)) {
        if (reads(in, i) || keeps_old(in, i)) mov(Reg64(used), home(number));
        if (writes(in, i)) back[backs++] = {number, used};
      }
    }
    if (reg_field) {
      extension = used;
    } else {
      rm = {.memory = false, .reg = used};
    }
  }
  rewrite(in, extension, rm, immediate);
  for (unsigned i = 0; i < backs; ++i) mov(home(back[i].guest), Reg64(back[i].scratch));
}

void Unit::rewrite_step(UnitBlock& b, Step& s) {
  const bool wants_flags = s.plan.reads_flags || (s.plan.keeps_some && s.flags_live);
  const bool changes_flags = s.plan.writes_flags || s.plan.keeps_some;
  int base = 0;
  if (s.plan.memory >= 0) {
    flags_lost(true);
    operand_address(b, s);
    if (wants_flags) {
      mov(rdx, rax);
      base = 2;
    }
  }
  if (wants_flags) {
    need_flags();
  } else if (changes_flags) {
    flags_lost(false);
  }
  operate(s.in, s.plan, base);
  if (changes_flags) flags_written(s.flags_live);
}

void Unit::lea_step(UnitBlock& b, Step& s) {
  linear_address(*s.op, b.offset, false);
  if (s.in.size(0) == 4) mov(eax, eax);
  put(gpr_of(s.in, 0), rax);
}

void Unit::move_immediate(Step& s) {
  const unsigned number = gpr_of(s.in, 0);
  const uint64_t value = s.in.imm(1);
  const unsigned size = s.in.size(0);
  const Reg64 to = mapped(number) ? host(number) : rdx;
  if (size == 8) {
    mov(to, value);
  } else if (size == 4) {
    mov(to.cvt32(), static_cast<uint32_t>(value));
  } else {
    if (!mapped(number)) get(to, number);
    if (size == 2) {
      mov(to.cvt16(), static_cast<uint16_t>(value));
    } else {
      mov(to.cvt8(), static_cast<uint8_t>(value));
    }
  }
  if (!mapped(number)) put(number, to);
}

// By one at last: then the host defines OF, and as the interpreter does. AF is 0 after shifts.
void Unit::shift_immediate(UnitBlock& b, Step& s) {
  const bool rotates = s.plan.keeps_some;
  const int count = static_cast<int>(s.in.imm(1) & (s.in.size(0) == 8 ? 63 : 31));
  int base = 0;
  if (s.plan.memory >= 0) {
    flags_lost(true);
    operand_address(b, s);
    mov(rdx, rax);
    base = 2;
  }
  const bool by_one = (s.in.raw.opcode & 0xfe) == 0xd0;
  if (count == 0) {
    // Flags stay; a 32-bit register still loses its upper half.
    if (s.plan.memory < 0) operate(s.in, s.plan, base);
    return;
  }
  if (!s.flags_live) {
    flags_lost(false);
    operate(s.in, s.plan, base);
    flags_written(false);
    return;
  }
  if (rotates) need_flags();
  if (count > 1 && !by_one) operate(s.in, s.plan, base, count - 1);
  operate(s.in, s.plan, base, by_one ? -1 : 1);
  flags_written(true);
  if (rotates) return;
  save_flags(true);
  home_valid_ = true;
  host_valid_ = false;
}

void Unit::shift_by_cl(Step& s) {
  const Insn& in = s.in;
  const unsigned number = gpr_of(in, 0), size = in.size(0);
  const Reg64 at = mapped(number) ? host(number) : rdx;
  const auto shift = [&](bool by_one) {
    // D2/D3 count in CL, D0/D1 by one.
    Insn plain = in;
    plain.raw.opcode = static_cast<uint8_t>((in.raw.opcode & 1) | (by_one ? 0xd0 : 0xd2));
    rewrite(plain, in.raw.raw.modrm.reg, {.memory = false, .reg = at.getIdx()});
  };
  flags_lost(s.flags_live);
  if (!mapped(number)) get(rdx, number);
  get(rcx, kRcx);
  if (!s.flags_live) {
    shift(false);
    flags_written(false);
  } else {
    Label& none = new_label();
    if (size == 4) mov(at.cvt32(), at.cvt32());
    and_(ecx, size == 8 ? 63 : 31);
    jz(none);
    dec(ecx);
    shift(false);
    shift(true);
    save_flags(true);
    L(none);
    home_valid_ = true;
    host_valid_ = false;
  }
  if (!mapped(number)) put(number, rdx);
}

// SF, ZF and PF, which the host leaves undefined, are those of the low half; AF is 0.
void Unit::multiply(UnitBlock& b, Step& s) {
  if (s.plan.memory >= 0) {
    flags_lost(true);
    operand_address(b, s);
  } else {
    flags_lost(false);
  }
  operate(s.in, s.plan, 0);
  if (!s.flags_live) return flags_written(false);
  const unsigned number = gpr_of(s.in, 0);
  const unsigned bits = s.in.size(0) * 8;
  const Reg64 at = mapped(number) ? host(number) : rcx;
  seto(al);
  movzx(edx, al);
  if (bits == 64) test(at, at);
  if (bits == 32) test(at.cvt32(), at.cvt32());
  if (bits == 16) test(at.cvt16(), at.cvt16());
  lahf();
  or_(ah, dl);
  mov(word[rbp + layout_.host_flags], ax);
  home_valid_ = true;
  host_valid_ = false;
}

// CF is the bit, the others stay whatever the host does with them.
void Unit::bit_test(UnitBlock& b, Step& s) {
  flags_lost(s.flags_live || s.plan.memory >= 0);
  if (s.plan.memory >= 0) operand_address(b, s);
  operate(s.in, s.plan, 0);
  if (!s.flags_live) return flags_written(false);
  setc(al);
  movzx(ecx, byte[rbp + layout_.host_flags + 1]);
  and_(ecx, 0xfe);
  or_(cl, al);
  mov(byte[rbp + layout_.host_flags + 1], cl);
  home_valid_ = true;
  host_valid_ = false;
}

// Flags are those of the source by TEST; a source of zero leaves the destination.
void Unit::bit_scan(UnitBlock& b, Step& s) {
  const unsigned size = s.in.size(0), number = gpr_of(s.in, 0);
  if (size == 2) {
    flags_lost(true);
    lone_op(b, s);
    home_valid_ = true;
    return;
  }
  flags_lost(s.plan.memory >= 0);
  if (s.plan.memory >= 0) {
    operand_address(b, s);
    if (size == 8) {
      mov(rdx, qword[rax]);
    } else {
      mov(edx, dword[rax]);
    }
  } else {
    get(rdx, gpr_of(s.in, 1));
  }
  const bool forward =
      s.in.mnemonic() == ZYDIS_MNEMONIC_BSF || s.in.mnemonic() == ZYDIS_MNEMONIC_TZCNT;
  const Reg64 at = mapped(number) ? host(number) : rcx;
  if (!mapped(number)) get(rcx, number);
  const Reg from = size == 8 ? Reg(rdx) : Reg(edx), to = size == 8 ? Reg(rax) : Reg(eax);
  if (forward) {
    bsf(to, from);
  } else {
    bsr(to, from);
  }
  test(from, from);
  cmovnz(at, rax);
  if (!mapped(number)) put(number, rcx);
  flags_written(s.flags_live);
}

void Unit::byte_swap(Step& s) {
  const unsigned number = gpr_of(s.in, 0);
  get(rax, number);
  switch (s.in.size(0)) {
    case 8: bswap(rax); break;
    case 4: bswap(eax); break;
    default: mov(ax, 0); break;
  }
  put(number, rax);
}

void Unit::extend_accumulator(Step& s) {
  get(rax, kRax);
  switch (s.in.mnemonic()) {
    case ZYDIS_MNEMONIC_CDQE:
      movsxd(rax, eax);
      put(kRax, rax);
      break;
    case ZYDIS_MNEMONIC_CWDE:
      movsx(eax, ax);
      put(kRax, rax);
      break;
    case ZYDIS_MNEMONIC_CDQ:
      cdq();
      put(kRdx, rdx);
      break;
    default:
      cqo();
      put(kRdx, rdx);
      break;
  }
}

}  // namespace us::hv
