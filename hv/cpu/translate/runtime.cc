#include "hv/cpu/translate/runtime.h"

#include "hv/cpu/translate/host_flags.h"
#include "ipt/packet_writer.h"

namespace us::hv {
namespace {

constexpr std::array<LazyFlags, 512> lazy_flags() {
  std::array<LazyFlags, 512> all{};
  for (uint64_t i = 0; i < all.size(); ++i) {
    const bool carry = i & flag::kCf, overflow = i >> 8, zero = i & flag::kZf;
    all[i].result = zero ? 0 : 1;
    all[i].aux = (carry ? kAuxCarry : 0) | (carry != overflow ? kAuxCarryIn : 0) |
                 ((i & flag::kAf) ? kAuxAdjust : 0) | ((i & flag::kSf) ? kAuxSign : 0) |
                 (((i & flag::kPf) != 0) != zero ? kAuxParity : 0);
  }
  return all;
}

}  // namespace

constexpr std::array<LazyFlags, 512> kLazyFlags = lazy_flags();

namespace runtime {

// The calls that end these functions become jumps by optimisation alone: Clang's musttail asks for
// the caller's own signature.

const Op* enter(Cpu& c, const Op* op) {
  c.host_flags = pack_host_flags(c);
  c.regs[kRipBase] &= ~kPageMask;
  return c.enter_translated(&c, block_of(op)->entry);
}

const Op* come_back(Cpu&, const Op* op) { return op; }

const Op* run_lone(Cpu& c, const Op* op) {
  unpack_host_flags(c, c.host_flags);
  const Op* const next = op->fn(c, op);
  if (next != nullptr) c.host_flags = pack_host_flags(c);
  return next;
}

const Op* interpret_from(Cpu& c, Block* block, uint32_t index) {
  unpack_host_flags(c, c.host_flags);
  c.regs[kRipBase] += block->phys & kPageMask;
  const Op* const op = block->ops + index;
  const Handler fn = index == 0 ? block->first : op->fn;
  return fn(c, op);
}

const Op* go_to_block(Cpu& c, Block* block) {
  unpack_host_flags(c, c.host_flags);
  c.regs[kRipBase] += block->phys & kPageMask;
  return block->ops->fn(c, block->ops);
}

const Op* stop_at(Cpu& c, uint64_t rip) {
  unpack_host_flags(c, c.host_flags);
  c.rip = rip;
  c.exit = Exit::kContinue;
  c.link_slot = nullptr;
  return nullptr;
}

const Op* look_up(Cpu& c, Block* block) {
  const uint64_t rip = c.regs[kRipBase] + (block->phys & kPageMask);
  Block* const found = quick_find(c, rip);
  if (found == nullptr) return stop_at(c, rip);
  US_TAIL return go_to_block(c, found);
}

const Op* find_target(Cpu& c, JumpSlot* slot) {
  const uint64_t rip = c.regs[kRipBase] + slot->offset;
  Block* const block = quick_find(c, rip);
  if (block == nullptr) return stop_at(c, rip);
  if (block->translated) slot->code = block->entry;
  return go_to_block(c, block);
}

void branches_full(Cpu& c) { c.trace->write_branches(); }
void indirect(Cpu& c) { c.trace->indirect(c.scratch[1].q[0]); }

}  // namespace runtime
}  // namespace us::hv
