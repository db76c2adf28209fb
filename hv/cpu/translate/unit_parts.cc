// Pieces that all kinds of instructions share: flags, memory operands, calls of handlers.
#include "hv/cpu/translate/unit.h"

namespace us::hv {

using namespace Xbyak;

// --- Flags. host_valid_: the host's flags are the guest's. home_valid_: Cpu::host_flags are.

// The host's flags are about to change.
void Unit::flags_lost(bool live) {
  if (live && host_valid_ && !home_valid_) {
    save_flags();
    home_valid_ = true;
  }
  host_valid_ = false;
}

void Unit::need_flags() {
  if (host_valid_) return;
  restore_flags();
  host_valid_ = true;
}

// The host's flags have just become the guest's.
void Unit::flags_written(bool live) {
  host_valid_ = live;
  home_valid_ = false;
}

// --- Handlers

void Unit::lone_op(const UnitBlock& b, const Step& s) {
  auto* const lone = static_cast<LoneOp*>(memory_.allocate(sizeof(LoneOp)));
  const int64_t disp = int64_t{s.op->disp} + (s.op->base == kRipBase ? b.offset : 0);
  if (lone == nullptr || disp != static_cast<int32_t>(disp)) {
    failed_ = true;
    return;
  }
  // As if the block began where its page does: that is what regs[kRipBase] holds here.
  lone->op = *s.op;
  if (s.op == b.block->ops) lone->op.fn = b.block->first;
  lone->op.offset = static_cast<uint16_t>(s.op->offset + b.offset);
  lone->op.disp = static_cast<int32_t>(disp);
  lone->after.fn = &runtime::come_back;
  store_xmm();
  mov(rax, reinterpret_cast<uint64_t>(&lone->op));
  call(stubs_.lone);
  load_xmm();
}

void Unit::interpret_rest(UnitBlock& b, size_t index) {
  store_xmm();
  mov(rax, reinterpret_cast<uint64_t>(b.block));
  mov(edx, static_cast<uint32_t>(index));
  jmp(stubs_.interpret, T_NEAR);
}

// --- Memory

void Unit::run_cold_step(UnitBlock& b, Step& s, Label& miss) {
  Label& back = new_label();
  cold_.push_back([this, &b, &s, &back, &miss] {
    L(miss);
    lone_op(b, s);
    // Behind the step the flags are where the fast path left them.
    if (s.host_after) restore_flags();
    jmp(back, T_NEAR);
  });
  behind_step_ = &back;
}

void Unit::checked_address(UnitBlock& b, Step& s, unsigned size, bool write, bool miss_ends) {
  Label& miss = new_label();
  host_address(size, write, s.plan.aligned, miss);
  if (miss_ends) {
    const size_t index = b.steps.size() - 1;
    cold_.push_back([this, &b, &miss, index] {
      L(miss);
      interpret_rest(b, index);
    });
  } else {
    run_cold_step(b, s, miss);
  }
}

void Unit::operand_address(UnitBlock& b, Step& s) {
  linear_address(*s.op, b.offset, true);
  checked_address(b, s, s.in.size(static_cast<unsigned>(s.plan.memory)), s.plan.stores);
}

void Unit::load_xmm() {
  for (int i = 0; i < 16; ++i)
    if ((xmm_used_ >> i & 1) != 0) movaps(Xbyak::Xmm(i), xword[rbp + layout_.xmm + i * 16]);
}

void Unit::store_xmm() {
  for (int i = 0; i < 16; ++i)
    if ((xmm_written_ >> i & 1) != 0) movaps(xword[rbp + layout_.xmm + i * 16], Xbyak::Xmm(i));
}

}  // namespace us::hv
