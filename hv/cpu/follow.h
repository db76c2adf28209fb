// Going from one block to the next. Every conditional branch and jump passes here, so this is where
// counts become exact and where kicks and alarms are seen.
#pragma once

#include "hv/cpu/code_cache.h"
#include "hv/cpu/handler.h"

namespace us::hv {

// The link was empty, or the limit is reached: finds the next block without leaving if it can.
// Expects regs[kRipBase] and link_slot set; counts are already added.
const Op* follow_slowly(Cpu& c, const Op* op);

inline bool must_stop(const Cpu& c) {
  return c.branches >= c.branch_limit.load(std::memory_order_relaxed);
}

// Tail of a handler: continue at `rip` through `link`.
#define US_FOLLOW(c, op, rip_value, link)                                               \
  do {                                                                                  \
    (c).regs[kRipBase] = (rip_value);                                                   \
    Block* const next_block = (link);                                                   \
    if (US_LIKELY(next_block != nullptr && !must_stop(c))) US_GOTO(c, next_block->ops); \
    (c).link_slot = &(link);                                                            \
    US_TAIL return follow_slowly((c), (op));                                            \
  } while (0)

// The instruction pointer wraps at its width. SDM 1 3.5.
template <bool k64>
inline uint64_t wrap_rip(uint64_t rip, const Op* op) {
  if constexpr (k64) return rip;
  return (op->flags & Op::kAddress16) ? rip & 0xffff : rip & 0xffff'ffff;
}

// Both ways out of a conditional branch, after counts were added.
#define US_BRANCH(c, op, taken, k64, taken_offset, fall_offset)                \
  do {                                                                         \
    if (taken)                                                                 \
      US_FOLLOW(c, op, wrap_rip<k64>((c).regs[kRipBase] + (taken_offset), op), \
                links_of(op).taken);                                           \
    US_FOLLOW(c, op, wrap_rip<k64>((c).regs[kRipBase] + (fall_offset), op),    \
              links_of(op).fall_through);                                      \
  } while (0)

inline void count_branch(Cpu& c, const Op* op, unsigned instructions) {
  c.instructions += op->ordinal + instructions;
  ++c.branches;
}

}  // namespace us::hv
