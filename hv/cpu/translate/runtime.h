// What translated code calls, and how the interpreter gets into it.
//
// Translated code and handlers share the Cpu. Outside translated code regs[kRipBase] is the entry
// address of the running block; inside it is the address of the running page, so that all code of a
// page shares it. Flags: see host_flags.h.
#pragma once

#include "hv/cpu/code_cache.h"
#include "hv/cpu/handler.h"

namespace us::hv {

// A jump to a place in the same page. `code` is where it goes: to a stub that asks find_target(),
// or straight to the translated block.
struct JumpSlot {
  const void* code = nullptr;
  const void* unlinked = nullptr;
  uint32_t offset = 0;  // of the target in its page
};

// An op as the interpreter runs it alone: the handler goes on to `after`, which comes back.
struct LoneOp {
  Op op;
  Op after;
};

inline Block* block_of(const Op* first) {
  constexpr size_t kHeader = (sizeof(Block) + 31) & ~size_t{31};
  return reinterpret_cast<Block*>(reinterpret_cast<uintptr_t>(first) - kHeader);
}

namespace runtime {

// First handler of a translated block.
const Op* enter(Cpu& c, const Op* op);
// A LoneOp's second handler.
const Op* come_back(Cpu& c, const Op* op);
// Runs a lone op; null: it left, and the run loop is next.
const Op* run_lone(Cpu& c, const Op* op);
// Leaves translated code: to the interpreter at op `index` of `block`; at a block found by a jump;
// to the run loop at `rip`, or at a block whose second page must be looked up again; through a slot
// that leads nowhere yet.
const Op* interpret_from(Cpu& c, Block* block, uint32_t index);
const Op* go_to_block(Cpu& c, Block* block);
const Op* stop_at(Cpu& c, uint64_t rip);
const Op* look_up(Cpu& c, Block* block);
const Op* find_target(Cpu& c, JumpSlot* slot);

// The PT model's writer has no room for more branches; an indirect branch to scratch[1] retired.
void branches_full(Cpu& c);
void indirect(Cpu& c);

}  // namespace runtime
}  // namespace us::hv
