#include "hv/cpu/translate/unit.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "hv/cpu/control.h"

namespace us::hv {
namespace {

constexpr unsigned kMaxBlocks = 24, kMaxOps = 320;
constexpr size_t kRoomForUnit = size_t{1} << 20;

const ZydisDecoder& decoder() {
  static const ZydisDecoder instance = [] {
    ZydisDecoder d;
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return d;
  }();
  return instance;
}

bool decode(const uint8_t* bytes, unsigned length, uint16_t offset, Mode mode, Insn& in) {
  in.mode = mode;
  in.offset = offset;
  return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder(), bytes, length, &in.raw, in.operands));
}

}  // namespace

Unit::Unit(Cpu& c, CodeMemory& memory) : Emitter(c, memory), cpu_(c) { write_stubs(c); }

bool Unit::has_room() const {
  return getSize() + kRoomForUnit < CodeMemory::kCodeBytes && memory_.has_data(kRoomForUnit);
}

void Unit::forget_all() {
  reset();
  memory_.clear_data();
  write_stubs(cpu_);
}

bool Unit::translate(Block& head, FinishedUnit& out) {
  blocks_.clear();
  cold_.clear();
  labels_.clear();
  ops_ = xmm_used_ = xmm_written_ = 0;
  failed_ = false;
  traced_ = (head.mode.bits & Mode::kTrace) != 0;
  out_ = &out;
  out = {};
  out.head = &head;
  if (!add_block(head)) return false;
  grow();
  for (UnitBlock& b : blocks_) mark_live_flags(b);
  for (UnitBlock& b : blocks_) {
    for (const Step& s : b.steps)
      if (s.plan.uses_xmm) note_xmm(s.in);
  }
  if (!worth_it()) return false;
  const size_t begin = getSize();
  align(16);
  out.entry = executable();
  load_xmm();
  for (current_ = 0; current_ < blocks_.size(); ++current_) write_block(current_);
  write_cold();
  for (UnitBlock& b : blocks_) out.blocks.push_back(b.block);
  if (failed_ || Xbyak::GetError() != Xbyak::ERR_NONE) {
    US_CHECK(Xbyak::GetError() == Xbyak::ERR_NONE, "assembler: {}",
             Xbyak::ConvertErrorToString(Xbyak::GetError()));
    setSize(begin);
    return false;
  }
  return true;
}

// --- What belongs to the unit

bool Unit::add_block(Block& block) {
  if (block.op_count == 0) return false;
  UnitBlock& b = blocks_.emplace_back();
  b.block = &block;
  b.offset = static_cast<uint32_t>(block.phys & kPageMask);
  if (!read_steps(b)) {
    blocks_.pop_back();
    return false;
  }
  ops_ += block.op_count;
  find_successors(b);
  return true;
}

bool Unit::read_steps(UnitBlock& b) {
  const Block& block = *b.block;
  const uint8_t* bytes = cpu_.memory.host(GuestPhys(block.phys));
  uint8_t gathered[16] = {};
  if (block.crosses_page) {
    if (!cpu_.memory.contains(GuestPhys(block.phys2), sizeof gathered)) return false;
    const size_t left = kPageSize - b.offset;
    if (left >= sizeof gathered || block.size > sizeof gathered) return false;
    std::memcpy(gathered, bytes, left);
    std::memcpy(gathered + left, cpu_.memory.host(GuestPhys(block.phys2)), sizeof gathered - left);
    bytes = gathered;
  }
  b.steps.reserve(block.op_count);  // they are large
  for (uint32_t i = 0; i < block.op_count; ++i) {
    Step& s = b.steps.emplace_back();
    s.op = block.ops + i;
    const Op& op = *s.op;
    if (op.length == 0) continue;  // the fall-through
    // An instruction the decoder refuses ends the block and is left to its handler.
    const unsigned left = block.size - op.offset;
    if (!decode(bytes + op.offset, std::min(left, 15u), op.offset, block.mode, s.in)) {
      if (i + 1 != block.op_count) return false;
      s.in.raw.length = op.length;
      s.in.raw.mnemonic = ZYDIS_MNEMONIC_INVALID;
      continue;
    }
    s.fused = (op.flags & Op::kFused) != 0;
    if (s.fused) {
      const auto second = static_cast<uint16_t>(op.offset + s.in.raw.length);
      if (!decode(bytes + second, block.size - second, second, block.mode, s.jump)) return false;
    }
    if (i + 1 != block.op_count || s.fused) s.plan = plan_of(s.in, op);
    if (i + 1 != block.op_count && s.in.raw.length != op.length) return false;
  }
  return true;
}

void Unit::find_successors(UnitBlock& b) {
  const Step& s = b.steps.back();
  const auto in_page = [&](int64_t from_entry) {
    const int64_t at = int64_t{b.offset} + from_entry;
    return at >= 0 && at < static_cast<int64_t>(kPageSize) ? static_cast<int>(at) : -1;
  };
  if (s.op->length == 0) {
    b.fall_through = in_page(static_cast<int64_t>(s.op->imm));
    return;
  }
  const Insn& in = s.fused ? s.jump : s.in;
  const bool conditional = s.fused || (in.raw.meta.category == ZYDIS_CATEGORY_COND_BR &&
                                       in.raw.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE);
  const bool jump = in.mnemonic() == ZYDIS_MNEMONIC_JMP || in.mnemonic() == ZYDIS_MNEMONIC_CALL;
  if (conditional || (jump && in.is_imm(0) && in.operands[0].imm.is_relative))
    b.taken = in_page(direct_target_offset(in));
  if (conditional) b.fall_through = in_page(s.op->offset + s.op->length);
}

// Takes in what the unit's jumps lead to, as far as the interpreter has been there.
void Unit::grow() {
  const CodePage* page = cpu_.code->page_of(blocks_[0].block->phys);
  const Mode mode = blocks_[0].block->mode;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const bool call = blocks_[i].steps.back().in.mnemonic() == ZYDIS_MNEMONIC_CALL;
    for (const bool taken : {false, true}) {
      const int offset = taken ? blocks_[i].taken : blocks_[i].fall_through;
      if (offset < 0) continue;
      int& index = taken ? blocks_[i].taken_index : blocks_[i].fall_through_index;
      for (size_t k = 0; k < blocks_.size() && index < 0; ++k)
        if (static_cast<int>(blocks_[k].offset) == offset) index = static_cast<int>(k);
      if (index >= 0 || call || blocks_.size() == kMaxBlocks) continue;
      Block* next = page->at[offset];
      if (next == nullptr || next->mode != mode || next->heat * 4 < blocks_[0].block->heat ||
          ops_ + next->op_count > kMaxOps)
        continue;
      if (add_block(*next)) {
        (taken ? blocks_[i].taken_index : blocks_[i].fall_through_index) =
            static_cast<int>(blocks_.size() - 1);
      }
    }
  }
}

bool Unit::edge_sees_flags(const UnitBlock& b, bool taken) const {
  const int index = taken ? b.taken_index : b.fall_through_index;
  return index < 0 || !blocks_[static_cast<size_t>(index)].kills_flags;
}

// Backwards: whose flags can be seen. A stop is between any two blocks: somebody may kick while the
// unit runs, then the next block is interpreted and the guest stops behind it. So flags may be dead
// behind a block only if the very next one writes them all itself; that a later one would (`own`
// leaves those out) does not help a guest that stops before it.
void Unit::mark_live_flags(UnitBlock& b) {
  bool live = true, own = true;
  for (size_t i = b.steps.size(); i-- > 0;) {
    Step& s = b.steps[i];
    s.flags_live = live;
    if (i + 1 == b.steps.size()) {
      if (s.fused) {
        live = own = s.plan.may_leave();
      } else if (s.op->length == 0) {
        live = edge_sees_flags(b, false);
      } else if (b.taken >= 0 && b.fall_through < 0 && s.in.mnemonic() == ZYDIS_MNEMONIC_JMP) {
        live = edge_sees_flags(b, true);
      }
    } else if (s.plan.may_leave() || s.plan.reads_flags) {
      live = own = true;
    } else if (s.plan.writes_flags) {
      live = own = false;
    }
  }
  b.kills_flags = !own && !b.block->crosses_page;
}

void Unit::note_xmm(const Insn& in) {
  for (unsigned i = 0; i < in.visible(); ++i) {
    if (!in.is_xmm(i)) continue;
    const unsigned bit = 1u << ZydisRegisterGetId(in.reg(i));
    xmm_used_ |= bit;
    if ((in.operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0) xmm_written_ |= bit;
  }
}

bool Unit::worth_it() const {
  const Step& last = blocks_[0].steps.back();
  return blocks_.size() > 1 || blocks_[0].steps.size() > 1 || last.fused || last.op->length != 0;
}

// --- Writing

void Unit::write_block(size_t index) {
  UnitBlock& b = blocks_[index];
  host_valid_ = false;
  home_valid_ = true;
  L(b.inside);
  if (kicked_ != nullptr) count_to_kick();
  Xbyak::Label& stop = new_label();
  cmp(r15, qword[rbp + layout_.branch_limit]);
  jae(stop, T_NEAR);
  cold_.push_back([this, &b, &stop] {
    L(stop);
    interpret_rest(b, 0);
  });
  if (b.block->crosses_page) check_second_page(b);
  for (size_t i = 0; i + 1 < b.steps.size(); ++i) write_step(b, b.steps[i]);
  write_end(b, b.steps.back());
}

void Unit::count_to_kick() {
  Xbyak::Label& no = new_label();
  mov(rax, reinterpret_cast<uint64_t>(&blocks_to_kick_));
  sub(dword[rax], 1);
  jnz(no);
  mov(rax, reinterpret_cast<uint64_t>(kicked_));
  mov(byte[rax], 1);
  mov(qword[rbp + layout_.branch_limit], 0);
  L(no);
}

void Unit::write_step(UnitBlock& b, Step& s) {
  behind_step_ = nullptr;
  dispatch_step(b, s);
  s.host_after = host_valid_;
  if (behind_step_ != nullptr) L(*behind_step_);
}

void Unit::dispatch_step(UnitBlock& b, Step& s) {
  switch (s.plan.how) {
    case How::kNothing: return;
    case How::kInterpret:
      flags_lost(true);
      lone_op(b, s);
      home_valid_ = true;
      return;
    case How::kRewrite: return rewrite_step(b, s);
    case How::kLea: return lea_step(b, s);
    case How::kMoveImmediate: return move_immediate(s);
    case How::kShiftImmediate: return shift_immediate(b, s);
    case How::kShiftCl: return shift_by_cl(s);
    case How::kMultiply: return multiply(b, s);
    case How::kMultiplyWide: return multiply_wide(b, s);
    case How::kDivide: return divide(b, s);
    case How::kBitTest: return bit_test(b, s);
    case How::kBitScan: return bit_scan(b, s);
    case How::kByteSwap: return byte_swap(s);
    case How::kExchange: return exchange(b, s);
    case How::kCompareExchange: return compare_exchange(b, s);
    case How::kExchangeAdd: return exchange_add(b, s);
    case How::kExtendAccumulator: return extend_accumulator(s);
    case How::kPush: return push_step(b, s);
    case How::kPop: return pop_step(b, s);
    case How::kLeave: return leave_step(b, s);
  }
}

void Unit::write_cold() {
  for (size_t i = 0; i < cold_.size(); ++i) cold_[i]();
  cold_.clear();
}

}  // namespace us::hv
