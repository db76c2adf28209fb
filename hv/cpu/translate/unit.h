// Translates one unit: a block and those blocks of its page that it leads to directly. It is
// entered at its first block only; jumps between its blocks stay inside.
//
// What holds at the beginning of every block, in translated code: all guest state but the mapped
// registers and the flags is in the Cpu; the flags are in Cpu::host_flags, unless the block writes
// all of them before anything can see them. Each block first compares R15 with branch_limit and
// goes to the interpreter if its branch might be the one to stop at, so that only handlers stop.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <vector>

#include "hv/cpu/translate/emitter.h"
#include "hv/cpu/translate/plan.h"

namespace us::hv {

// One op of a block with its instruction (its two instructions, when fused).
struct Step {
  const Op* op = nullptr;
  Insn in;
  Insn jump;  // of a fused op
  Plan plan;
  bool fused = false;
  bool flags_live = true;   // somebody may see the flags it leaves
  bool host_after = false;  // behind it the guest's flags are in the host's
};

struct UnitBlock {
  Block* block = nullptr;
  uint32_t offset = 0;  // in the page
  std::vector<Step> steps;
  Xbyak::Label inside;
  bool kills_flags = false;           // writes all flags before anything can see them
  int taken = -1, fall_through = -1;  // offsets in the page of direct successors; -1: none in it
  int taken_index = -1, fall_through_index = -1;  // those that are in the unit
};

struct FinishedUnit {
  Block* head = nullptr;
  const uint8_t* entry = nullptr;
  std::vector<JumpSlot*> slots;
  std::vector<Block*> blocks;
};

class Unit : public Emitter {
 public:
  Unit(Cpu& c, CodeMemory& memory);

  // The unit that begins at `head`; false: it gains nothing by being translated, or there is no
  // room.
  bool translate(Block& head, FinishedUnit& out);
  bool has_room() const;
  void forget_all();
  // SoftVcpu::kick_after(): blocks translated from now on count.
  void kick_after(uint32_t blocks, std::atomic<bool>& kicked) {
    blocks_to_kick_ = blocks;
    kicked_ = &kicked;
  }
  // Where translated code goes for a block that is not translated.
  const void* entry_of_cold(const Block& block) const {
    return block.crosses_page ? stubs_.look_up : stubs_.go_to_block;
  }

 private:
  // --- unit.cc: what belongs to the unit
  bool add_block(Block& block);
  bool read_steps(UnitBlock& b);
  void find_successors(UnitBlock& b);
  void grow();
  void mark_live_flags(UnitBlock& b);
  void note_xmm(const Insn& in);
  bool worth_it() const;
  bool edge_sees_flags(const UnitBlock& b, bool taken) const;
  Xbyak::Label& new_label() { return labels_.emplace_back(); }
  void write_block(size_t index);
  void count_to_kick();
  void write_step(UnitBlock& b, Step& s);
  void dispatch_step(UnitBlock& b, Step& s);
  void write_cold();

  // --- unit_parts.cc: pieces
  void flags_lost(bool live);
  void need_flags();
  void flags_written(bool live);
  void lone_op(const UnitBlock& b, const Step& s);
  void interpret_rest(UnitBlock& b, size_t index);
  // RAX becomes the host address of the step's memory operand; a miss runs the step by its handler
  // and goes on behind it.
  void operand_address(UnitBlock& b, Step& s);
  // The same for an address in RAX; `miss_ends`: the step ends the block, so a miss leaves.
  void checked_address(UnitBlock& b, Step& s, unsigned size, bool write, bool miss_ends = false);
  void load_xmm();
  // A block whose instruction goes on in the next page: what was decoded is right only while that
  // page is where it was. Otherwise to the run loop.
  void check_second_page(const UnitBlock& b);
  void store_xmm();
  void run_cold_step(UnitBlock& b, Step& s, Xbyak::Label& miss);

  // --- unit_integer.cc
  void rewrite_step(UnitBlock& b, Step& s);
  void operate(const Insn& in, const Plan& plan, int memory_base, int immediate = -1);
  void lea_step(UnitBlock& b, Step& s);
  void move_immediate(Step& s);
  void shift_immediate(UnitBlock& b, Step& s);
  void shift_by_cl(Step& s);
  void multiply(UnitBlock& b, Step& s);
  void bit_test(UnitBlock& b, Step& s);
  void bit_scan(UnitBlock& b, Step& s);
  void byte_swap(Step& s);
  void extend_accumulator(Step& s);
  void exchange(UnitBlock& b, Step& s);
  // --- unit_wide.cc
  void multiply_wide(UnitBlock& b, Step& s);
  void divide(UnitBlock& b, Step& s);
  bool load_exchanged(UnitBlock& b, Step& s);
  void compare_exchange(UnitBlock& b, Step& s);
  void exchange_add(UnitBlock& b, Step& s);
  void push_step(UnitBlock& b, Step& s);
  void pop_step(UnitBlock& b, Step& s);
  void leave_step(UnitBlock& b, Step& s);

  // --- unit_control.cc
  void write_end(UnitBlock& b, Step& s);
  // The way out of a block; `retires`: a conditional branch goes there.
  void count(const Step& s);
  void edge(UnitBlock& b, const Step& s, bool taken, bool next, bool retires = false);
  // Intel PT, if the unit is traced: a branch's bit; the target of an indirect jump, which is kept
  // from when it is known until the jump retires. They do what the interpreter's handlers do, in
  // the same order (hv/cpu/trace.h).
  void trace_bit(bool taken);
  void keep_target();
  void trace_target();
  void jump_out(uint32_t offset);
  void jump_to_rip();
  void itlb_entry();
  void find_block(Xbyak::Label& miss);
  void conditional(UnitBlock& b, Step& s, const Insn& jump);
  void fused(UnitBlock& b, Step& s);
  void call_direct(UnitBlock& b, Step& s);
  void call_indirect(UnitBlock& b, Step& s);
  void jump_indirect(UnitBlock& b, Step& s);
  void return_step(UnitBlock& b, Step& s);
  void leave_page(UnitBlock& b, const Step& s, uint64_t from_entry);
  void target_of(UnitBlock& b, Step& s);
  void push_return(UnitBlock& b, Step& s);

  Cpu& cpu_;
  FinishedUnit* out_ = nullptr;
  std::deque<UnitBlock> blocks_;
  std::vector<std::function<void()>> cold_;
  std::deque<Xbyak::Label> labels_;
  Xbyak::Label* behind_step_ = nullptr;
  unsigned ops_ = 0, xmm_used_ = 0, xmm_written_ = 0;
  size_t current_ = 0;
  bool host_valid_ = false, home_valid_ = true;
  bool failed_ = false, traced_ = false;
  uint32_t blocks_to_kick_ = 0;
  std::atomic<bool>* kicked_ = nullptr;
};

}  // namespace us::hv
