// The ends of blocks: counting, jumps inside the unit, through slots, and to other pages.
#include "hv/cpu/control.h"
#include "hv/cpu/translate/unit.h"
#include "ipt/packet_writer.h"

namespace us::hv {

using namespace Xbyak;

void Unit::write_end(UnitBlock& b, Step& s) {
  if (s.op->length == 0) {
    flags_lost(edge_sees_flags(b, false));
    edge(b, s, false, true);
    return;
  }
  if (s.fused) return fused(b, s);
  const Insn& in = s.in;
  const bool near = in.raw.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT ||
                    in.raw.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
  const bool jcc = in.raw.meta.category == ZYDIS_CATEGORY_COND_BR && in.is_imm(0) &&
                   (in.raw.opcode_map == ZYDIS_OPCODE_MAP_0F ? (in.raw.opcode & 0xf0) == 0x80
                                                             : (in.raw.opcode & 0xf0) == 0x70);
  if (jcc) return conditional(b, s, in);
  const bool plain = in.raw.address_width == 64 && in.operand_size() == 8 && near;
  if (plain && in.mnemonic() == ZYDIS_MNEMONIC_JMP) {
    if (!in.is_imm(0)) return jump_indirect(b, s);
    flags_lost(edge_sees_flags(b, true));
    return edge(b, s, true, true);
  }
  if (plain && in.mnemonic() == ZYDIS_MNEMONIC_CALL)
    return in.is_imm(0) ? call_direct(b, s) : call_indirect(b, s);
  if (plain && in.mnemonic() == ZYDIS_MNEMONIC_RET) return return_step(b, s);
  flags_lost(true);
  interpret_rest(b, b.steps.size() - 1);
}

// The block's instructions have retired; clobbers the host's flags.
void Unit::count(const Step& s) {
  const unsigned instructions = s.op->ordinal + (s.op->length == 0 ? 0u : s.fused ? 2u : 1u);
  if (instructions != 0) add(qword[rbp + layout_.instructions], instructions);
}

// One way out of a block whose target is known; flags that anyone sees there must be in the host's
// or at home. `next`: nothing of this block is written after it.
void Unit::edge(UnitBlock& b, const Step& s, bool taken, bool next, bool retires) {
  const int index = taken ? b.taken_index : b.fall_through_index;
  const int offset = taken ? b.taken : b.fall_through;
  if (host_valid_ && !home_valid_ && edge_sees_flags(b, taken)) save_flags();
  count(s);
  if (retires) trace_bit(taken);
  if (index >= 0) {
    UnitBlock& to = blocks_[static_cast<size_t>(index)];
    if (!next || static_cast<size_t>(index) != current_ + 1) jmp(to.inside, T_NEAR);
    return;
  }
  store_xmm();
  if (offset >= 0) return jump_out(static_cast<uint32_t>(offset));
  uint64_t from_entry = s.op->offset + s.op->length;
  if (s.op->length == 0) from_entry = s.op->imm;
  if (taken) from_entry = static_cast<uint64_t>(direct_target_offset(s.fused ? s.jump : s.in));
  leave_page(b, s, from_entry);
}

// To a place in this page that is not in the unit: through a slot.
void Unit::jump_out(uint32_t offset) {
  auto* const slot = static_cast<JumpSlot*>(memory_.allocate(sizeof(JumpSlot)));
  if (slot == nullptr) {
    failed_ = true;
    return;
  }
  out_->slots.push_back(slot);
  slot->offset = offset;
  // JMP [RIP + distance]
  const auto behind = reinterpret_cast<intptr_t>(executable()) + 6;
  db(0xff);
  db(0x25);
  dd(static_cast<uint32_t>(reinterpret_cast<intptr_t>(&slot->code) - behind));
  cold_.push_back([this, slot] {
    slot->code = slot->unlinked = executable();
    mov(rax, reinterpret_cast<uint64_t>(slot));
    jmp(stubs_.find_target, T_NEAR);
  });
}

// To another page: the target's block must be found each time, since its mapping may change.
void Unit::leave_page(UnitBlock& b, const Step&, uint64_t from_entry) {
  mov(rax, home(kRipBase));
  mov(rcx, static_cast<int64_t>(from_entry + b.offset));
  add(rax, rcx);
  jump_to_rip();
}

// RCX becomes the entry of the instruction TLB for the address in RAX; uses RDX.
void Unit::itlb_entry() {
  static_assert(kItlbEntries == 256 && sizeof(ItlbEntry) == 24);
  mov(rcx, rax);
  shr(rcx, 12);
  movzx(ecx, cl);
  lea(rcx, ptr[rcx + rcx * 2]);
  mov(rdx, qword[rbp + layout_.itlb]);
  lea(rcx, ptr[rdx + rcx * 8]);
}

// The block at RAX becomes RDX and its page RAX, as quick_find() does it.
void Unit::find_block(Label& miss) {
  itlb_entry();
  mov(rdx, rax);
  and_(rdx, -0x1000);
  cmp(rdx, qword[rcx + static_cast<int>(offsetof(ItlbEntry, tag))]);
  jne(miss, T_NEAR);
  mov(rcx, qword[rcx + static_cast<int>(offsetof(ItlbEntry, page))]);
  mov(edx, eax);
  and_(edx, 0xfff);
  mov(rdx, qword[rcx + rdx * 8 + static_cast<int>(offsetof(CodePage, at))]);
  test(rdx, rdx);
  jz(miss, T_NEAR);
  cmp(dword[rdx + static_cast<int>(offsetof(Block, mode))], blocks_[0].block->mode.bits);
  jne(miss, T_NEAR);
  and_(rax, -0x1000);
}

void Unit::check_second_page(const UnitBlock& b) {
  Label& moved = new_label();
  mov(rax, home(kRipBase));
  add(rax, static_cast<uint32_t>(kPageSize));
  itlb_entry();
  cmp(rax, qword[rcx + static_cast<int>(offsetof(ItlbEntry, tag))]);
  jne(moved, T_NEAR);
  mov(rdx, qword[rcx + static_cast<int>(offsetof(ItlbEntry, phys_page))]);
  and_(rdx, -0x1000);
  mov(rax, b.block->phys2);
  cmp(rax, rdx);
  jne(moved, T_NEAR);
  cold_.push_back([this, &b, &moved] {
    L(moved);
    store_xmm();
    mov(rax, home(kRipBase));
    add(rax, b.offset);
    jmp(stubs_.stop, T_NEAR);
  });
}

// Goes to RAX; everything is counted and in its place.
void Unit::jump_to_rip() {
  Label& miss = new_label();
  find_block(miss);
  mov(home(kRipBase), rax);
  jmp(qword[rdx + static_cast<int>(offsetof(Block, entry))]);
  cold_.push_back([this, &miss] {
    L(miss);
    jmp(stubs_.stop, T_NEAR);
  });
}

// The jump goes over the way out that is written first; the other may simply continue.
void Unit::conditional(UnitBlock& b, Step& s, const Insn& jump) {
  static constexpr void (CodeGenerator::*kJumps[16])(const Label&, LabelType) = {
      &CodeGenerator::jo, &CodeGenerator::jno, &CodeGenerator::jb,  &CodeGenerator::jae,
      &CodeGenerator::je, &CodeGenerator::jne, &CodeGenerator::jbe, &CodeGenerator::ja,
      &CodeGenerator::js, &CodeGenerator::jns, &CodeGenerator::jp,  &CodeGenerator::jnp,
      &CodeGenerator::jl, &CodeGenerator::jge, &CodeGenerator::jle, &CodeGenerator::jg};
  need_flags();
  lea(r15, ptr[r15 + 1]);
  const bool taken_first =
      b.fall_through_index >= 0 && static_cast<size_t>(b.fall_through_index) == current_ + 1;
  const unsigned code = jump.raw.opcode & 15u;
  Label& second = new_label();
  (this->*kJumps[taken_first ? code ^ 1 : code])(second, T_NEAR);
  edge(b, s, taken_first, false, true);
  L(second);
  edge(b, s, !taken_first, true, true);
}

void Unit::fused(UnitBlock& b, Step& s) {
  if (s.plan.how == How::kInterpret) {
    flags_lost(true);
    return interpret_rest(b, b.steps.size() - 1);
  }
  if (s.plan.memory >= 0) {
    flags_lost(true);
    linear_address(*s.op, b.offset, true);
    checked_address(b, s, s.in.size(static_cast<unsigned>(s.plan.memory)), false, true);
  } else {
    flags_lost(false);
  }
  operate(s.in, s.plan, 0);
  flags_written(true);
  conditional(b, s, s.jump);
}

// --- Intel PT. All of it comes where flags are saved already, and changes only scratch registers.

void Unit::trace_bit(bool taken) {
  if (!traced_) return;
  using Pending = ipt::PacketWriter::PendingBranches;
  const auto pending = static_cast<int>(reinterpret_cast<char*>(&cpu_.trace->pending_branches()) -
                                        reinterpret_cast<char*>(cpu_.trace));
  const int bits = pending + static_cast<int>(offsetof(Pending, bits));
  const int most = pending + static_cast<int>(offsetof(Pending, full));
  Label &full = new_label(), &back = new_label();
  mov(rcx, qword[rbp + layout_.trace]);
  mov(rax, qword[rcx + bits]);
  lea(rax, ptr[rax + rax + (taken ? 1 : 0)]);
  mov(qword[rcx + bits], rax);
  cmp(rax, qword[rcx + most]);
  jae(full, T_NEAR);
  L(back);
  cold_.push_back([this, &full, &back] {
    L(full);
    call(stubs_.branches_full);
    jmp(back, T_NEAR);
  });
}

void Unit::keep_target() {
  if (traced_) mov(qword[rbp + layout_.scratch + 16], rax);
}

void Unit::trace_target() {
  if (traced_) call(stubs_.indirect);
}

// --- Calls, returns, indirect jumps

void Unit::push_return(UnitBlock& b, Step& s) {
  lea(rax, ptr[host(kRsp) - 8]);
  checked_address(b, s, 8, true, true);
  mov(rcx, home(kRipBase));
  lea(rcx, ptr[rcx + static_cast<int>(b.offset + s.op->offset + s.op->length)]);
  mov(qword[rax], rcx);
  advance(kRsp, -8);
}

void Unit::call_direct(UnitBlock& b, Step& s) {
  flags_lost(true);
  push_return(b, s);
  edge(b, s, true, true);
}

// RAX: where an indirect jump or call goes.
void Unit::target_of(UnitBlock& b, Step& s) {
  flags_lost(true);
  if (s.in.is_mem(0)) {
    linear_address(*s.op, b.offset, true);
    checked_address(b, s, 8, false, true);
    mov(rax, qword[rax]);
  } else {
    get(rax, gpr_of(s.in, 0));
  }
}

void Unit::jump_indirect(UnitBlock& b, Step& s) {
  target_of(b, s);
  keep_target();
  Label& miss = new_label();
  find_block(miss);
  mov(home(kRipBase), rax);
  count(s);
  store_xmm();
  trace_target();
  jmp(qword[rdx + static_cast<int>(offsetof(Block, entry))]);
  cold_.push_back([this, &b, &miss] {
    L(miss);
    interpret_rest(b, b.steps.size() - 1);
  });
}

void Unit::call_indirect(UnitBlock& b, Step& s) {
  target_of(b, s);
  keep_target();
  Label& miss = new_label();
  find_block(miss);
  mov(qword[rbp + layout_.scratch], rdx);
  mov(qword[rbp + layout_.scratch + 8], rax);
  push_return(b, s);
  count(s);
  store_xmm();
  trace_target();
  mov(rdx, qword[rbp + layout_.scratch]);
  mov(rax, qword[rbp + layout_.scratch + 8]);
  mov(home(kRipBase), rax);
  jmp(qword[rdx + static_cast<int>(offsetof(Block, entry))]);
  cold_.push_back([this, &b, &miss] {
    L(miss);
    interpret_rest(b, b.steps.size() - 1);
  });
}

void Unit::return_step(UnitBlock& b, Step& s) {
  flags_lost(true);
  mov(rax, host(kRsp));
  checked_address(b, s, 8, false, true);
  mov(rax, qword[rax]);
  keep_target();
  Label& miss = new_label();
  find_block(miss);
  mov(home(kRipBase), rax);
  advance(kRsp, 8 + static_cast<int>(s.op->imm));
  count(s);
  store_xmm();
  trace_target();
  jmp(qword[rdx + static_cast<int>(offsetof(Block, entry))]);
  cold_.push_back([this, &b, &miss] {
    L(miss);
    interpret_rest(b, b.steps.size() - 1);
  });
}

}  // namespace us::hv
