// One decoded instruction as the selectors see it (Zydis behind a narrow view), and what a selector
// gives back.
#pragma once

#include <Zydis/Zydis.h>
#include <cstdint>

#include "hv/cpu/op.h"
#include "hv/cpu/state.h"

namespace us::hv {

struct Insn {
  ZydisDecodedInstruction raw;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];  // the visible ones come first
  Mode mode;
  uint16_t offset = 0;  // from the block's entry address

  ZydisMnemonic mnemonic() const { return raw.mnemonic; }
  unsigned visible() const { return raw.operand_count_visible; }
  bool is_reg(unsigned i) const {
    return i < visible() && operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER;
  }
  bool is_mem(unsigned i) const {
    return i < visible() && operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
  }
  bool is_imm(unsigned i) const {
    return i < visible() && operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  }
  ZydisRegister reg(unsigned i) const { return operands[i].reg.value; }
  ZydisRegisterClass reg_class(unsigned i) const { return ZydisRegisterGetClass(reg(i)); }
  bool is_gpr(unsigned i) const;  // general register of any width
  bool is_xmm(unsigned i) const { return is_reg(i) && reg_class(i) == ZYDIS_REGCLASS_XMM; }
  bool is_mmx(unsigned i) const { return is_reg(i) && reg_class(i) == ZYDIS_REGCLASS_MMX; }
  // Bytes of operand i.
  unsigned size(unsigned i) const { return operands[i].size / 8; }
  // Number for Op::dst/src: 0-15, or for 8-bit registers the byte offset (AH is 1, R9B is 72).
  uint8_t number(unsigned i) const;
  // Immediate, sign-extended if the instruction sign-extends it.
  uint64_t imm(unsigned i) const { return operands[i].imm.value.u; }
  // Memory operand reachable by flat_address(): 64-bit address size, no FS/GS.
  bool flat() const;
  bool has(ZydisInstructionAttributes a) const { return (raw.attributes & a) != 0; }
  bool lock() const { return has(ZYDIS_ATTRIB_HAS_LOCK); }
  // Effective operand size in bytes (2, 4, 8).
  unsigned operand_size() const { return raw.operand_width / 8; }
  unsigned address_size() const { return raw.address_width / 8; }
};

// Fills base, index, scale, disp, seg and address flags of `op` from memory operand i.
void set_memory(Op& op, const Insn& in, unsigned i);

struct Selection {
  Handler fn = nullptr;             // null: not mine
  Handler fn_flags_dead = nullptr;  // same effect but leaves the arithmetic flags undefined
  bool ends_block = false;
  bool pure = false;  // can neither fault nor leave, touches no memory
};

// One per instruction family. Fills `op` (operands; length and offset are set by the caller) and
// names its handler. Each is asked in turn until one answers.
Selection select_integer(const Insn& in,
                         Op& op);  // integer_*.cc: moves, ALU, shifts, bits, mul/div
Selection select_string(const Insn& in,
                        Op& op);  // string.cc: MOVS, STOS, CMPS, SCAS, LODS with REP
Selection select_control(const Insn& in, Op& op);  // control.cc: jumps, calls, returns, LOOP, JCXZ
Selection select_stack(const Insn& in, Op& op);    // stack.cc: PUSH, POP, ENTER, LEAVE, PUSHF, POPF
Selection select_system(const Insn& in,
                        Op& op);  // system_*.cc: everything privileged, INT, SYSCALL, far
Selection select_x87(const Insn& in, Op& op);  // x87_*.cc, FXSAVE/XSAVE
Selection select_mmx(const Insn& in, Op& op);  // mmx.cc
Selection select_sse(const Insn& in, Op& op);  // sse_*.cc

// Fuses a flag-setting instruction (already selected into `first`) with the Jcc that follows it.
// False: no such pair; nothing changed.
bool fuse_compare_and_jump(Op& first, const Insn& first_in, const Insn& jump, Selection& out);

}  // namespace us::hv
