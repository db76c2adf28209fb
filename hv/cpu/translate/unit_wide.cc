// Instructions with operands nobody names: products and quotients of double width, exchanges, the
// stack.
#include "hv/cpu/translate/unit.h"

namespace us::hv {

using namespace Xbyak;

namespace {

Reg sized(const Reg64& reg, unsigned size) {
  switch (size) {
    case 1: return reg.cvt8();
    case 2: return reg.cvt16();
    case 4: return reg.cvt32();
    default: return reg;
  }
}

}  // namespace

void Unit::multiply_wide(UnitBlock& b, Step& s) {
  const unsigned size = s.in.size(0);
  flags_lost(s.plan.memory >= 0 || size < 4);
  if (size < 4) {
    lone_op(b, s);
    home_valid_ = true;
    return;
  }
  if (s.plan.memory >= 0) {
    operand_address(b, s);
    if (size == 8) {
      mov(rcx, qword[rax]);
    } else {
      mov(ecx, dword[rax]);
    }
  } else {
    get(rcx, gpr_of(s.in, 0));
  }
  get(rax, kRax);
  const Reg by = sized(rcx, size);
  if (s.in.mnemonic() == ZYDIS_MNEMONIC_MUL) {
    mul(by);
  } else {
    imul(by);
  }
  put(kRax, rax);
  put(kRdx, rdx);
  if (!s.flags_live) return flags_written(false);
  seto(cl);
  test(sized(rax, size), sized(rax, size));
  lahf();
  or_(ah, cl);
  mov(al, cl);
  mov(word[rbp + layout_.host_flags], ax);
  home_valid_ = true;
  host_valid_ = false;
}

// A quotient that does not fit is left to the handler, which raises #DE. Flags stay.
void Unit::divide(UnitBlock& b, Step& s) {
  const unsigned size = s.in.size(0);
  flags_lost(true);
  if (size < 4) {
    lone_op(b, s);
    home_valid_ = true;
    return;
  }
  Label* fits = nullptr;
  if (s.plan.memory >= 0) {
    operand_address(b, s);
    if (size == 8) {
      mov(rcx, qword[rax]);
    } else {
      mov(ecx, dword[rax]);
    }
  } else {
    get(rcx, gpr_of(s.in, 0));
  }
  get(rax, kRax);
  get(rdx, kRdx);
  fits = &new_label();
  Label& done = new_label();
  cmp(sized(rdx, size), sized(rcx, size));
  jb(*fits, T_NEAR);
  lone_op(b, s);
  jmp(done, T_NEAR);
  L(*fits);
  div(sized(rcx, size));
  put(kRax, rax);
  put(kRdx, rdx);
  L(done);
  home_valid_ = true;
}

void Unit::exchange(UnitBlock& b, Step& s) {
  const Insn& in = s.in;
  if (s.plan.memory < 0) {
    const unsigned first = gpr_of(in, 0), second = gpr_of(in, 1), size = in.size(0);
    if (size < 4) {
      flags_lost(true);
      lone_op(b, s);
      home_valid_ = true;
      return;
    }
    get(rax, first);
    get(rcx, second);
    if (size == 4) {
      mov(eax, eax);
      mov(ecx, ecx);
    }
    put(first, rcx);
    put(second, rax);
    return;
  }
  const unsigned which = in.is_mem(0) ? 1 : 0;
  const unsigned number = gpr_of(in, which), size = in.size(which);
  flags_lost(true);
  operand_address(b, s);
  const Reg64 at = mapped(number) ? host(number) : rcx;
  if (!mapped(number)) get(rcx, number);
  const Reg old = sized(rdx, size), value = sized(at, size);
  mov(old, ptr[rax]);
  mov(ptr[rax], value);
  mov(value, old);
  if (!mapped(number)) put(number, rcx);
}

// The old value of a destination in memory in RDX, its address in RAX, and in RCX the register
// operand if it is not mapped. False: the instruction was written as a lone op.
bool Unit::load_exchanged(UnitBlock& b, Step& s) {
  const unsigned size = s.in.size(0), number = gpr_of(s.in, 1);
  flags_lost(true);
  if (s.plan.memory < 0 || size < 4) {
    lone_op(b, s);
    home_valid_ = true;
    return false;
  }
  operand_address(b, s);
  mov(sized(rdx, size), ptr[rax]);
  if (!mapped(number)) get(rcx, number);
  return true;
}

// Flags are those of comparing the accumulator with the destination.
void Unit::compare_exchange(UnitBlock& b, Step& s) {
  const Insn& in = s.in;
  const unsigned size = in.size(0), number = gpr_of(in, 1);
  if (!load_exchanged(b, s)) return;
  const Reg value = sized(mapped(number) ? host(number) : rcx, size);
  Label& differs = new_label();
  Label& done = new_label();
  const Reg accumulator = sized(host(kRax), size);
  cmp(accumulator, sized(rdx, size));
  jne(differs);
  mov(ptr[rax], value);
  jmp(done);
  L(differs);
  mov(accumulator, sized(rdx, size));
  L(done);
  flags_written(s.flags_live);
}

void Unit::exchange_add(UnitBlock& b, Step& s) {
  const Insn& in = s.in;
  const unsigned size = in.size(0), number = gpr_of(in, 1);
  if (!load_exchanged(b, s)) return;
  add(ptr[rax], sized(mapped(number) ? host(number) : rcx, size));
  put(number, rdx);
  flags_written(s.flags_live);
}

// --- The stack

void Unit::push_step(UnitBlock& b, Step& s) {
  flags_lost(true);
  lea(rax, ptr[host(kRsp) - 8]);
  checked_address(b, s, 8, true);
  if (s.in.is_imm(0)) {
    mov(qword[rax], s.in.imm(0));  // 32 bits, extended by their sign
  } else {
    const unsigned number = gpr_of(s.in, 0);
    if (!mapped(number)) get(rcx, number);
    mov(qword[rax], mapped(number) ? host(number) : rcx);
  }
  advance(kRsp, -8);
}

void Unit::pop_step(UnitBlock& b, Step& s) {
  flags_lost(true);
  mov(rax, host(kRsp));
  checked_address(b, s, 8, false);
  mov(rdx, qword[rax]);
  advance(kRsp, 8);
  put(gpr_of(s.in, 0), rdx);
}

void Unit::leave_step(UnitBlock& b, Step& s) {
  flags_lost(true);
  mov(rax, host(kRbp));
  checked_address(b, s, 8, false);
  mov(rdx, qword[rax]);
  lea(host(kRsp), ptr[host(kRbp) + 8]);
  put(kRbp, rdx);
}

}  // namespace us::hv
