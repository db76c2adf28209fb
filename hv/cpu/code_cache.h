// Decoded blocks, kept by guest physical page. A page's blocks are found by the offset of their
// first byte; stores into decoded bytes drop the blocks they hit.
#pragma once

#include <cstdint>
#include <memory>

#include "hv/core/memory.h"
#include "hv/cpu/cpu.h"
#include "hv/cpu/op.h"

namespace us::hv {

// Lives in a zero-filled, lazily backed mapping, one per RAM page, so its address never changes.
struct CodePage {
  // One bit per 16 bytes that hold decoded code.
  uint64_t lines[4];
  Block* blocks;    // all that start here, by next_in_page
  Block* crossing;  // one-instruction blocks that end here but start on another page
  Block* at[kPageSize];
};

// Told of every block: the translator.
class BlockObserver {
 public:
  virtual ~BlockObserver() = default;
  virtual void inserted(Block& block) = 0;
  virtual void dropping(Block& block) = 0;
  virtual void cleared() = 0;
};

class CodeCache final : public CodeWatcher {
 public:
  explicit CodeCache(Cpu& cpu);
  ~CodeCache() override;

  // The block at c.rip for c.mode, decoded if need be; null: a fault was recorded (#PF, #GP, #UD).
  // May drop every other block when the arena is full, so no block pointer survives a call.
  Block* find();

  // Whether a store there could change decoded code (16-byte granules).
  bool overlaps(uint64_t phys, unsigned size) const;
  // Bytes are about to change (or just did): drops the blocks made from them.
  void written(uint64_t phys, unsigned size);
  void code_written(GuestPhys address, size_t size) override {
    written(address.value, static_cast<unsigned>(size));
  }

  // Drops everything.
  void clear();

  // At most one; null: none. Before anything was decoded, or with clear() right after.
  void observe(BlockObserver* observer) { observer_ = observer; }
  BlockObserver* observer() const { return observer_; }

  // The page record for an instruction page; pages outside RAM share an empty one.
  CodePage* page_of(uint64_t phys);

  struct Counters {
    uint64_t blocks_decoded = 0, blocks_dropped = 0, clears = 0, instructions_decoded = 0;
  };
  const Counters& counters() const { return counters_; }

  // For decode.cc: room for `ops` ops (links included) and a block.
  Block* allocate(unsigned ops);
  static constexpr unsigned kMaxOps = 64;

 private:
  Block* decode(uint64_t linear, uint64_t phys);
  void insert(Block* block);
  void drop(Block* block);
  void forbid_writes(uint64_t phys);
  void refresh_lines(CodePage* page);

  Cpu& cpu_;
  CodePage* pages_ = nullptr;
  uint64_t page_count_ = 0;
  std::unique_ptr<CodePage> outside_;
  uint8_t* arena_ = nullptr;
  size_t arena_used_ = 0;
  Counters counters_;
  BlockObserver* observer_ = nullptr;
};

// A block ready to run at rip if the instruction TLB and the cache both know it; else null. For the
// handlers of indirect and page-crossing jumps.
inline Block* quick_find(const Cpu& c, uint64_t rip) {
  const ItlbEntry& e = c.itlb[(rip >> 12) & (kItlbEntries - 1)];
  if (e.tag != (rip & ~kPageMask)) return nullptr;
  Block* block = e.page->at[rip & kPageMask];
  if (block == nullptr || block->mode != c.mode) return nullptr;
  if (block->crosses_page) {
    const ItlbEntry& second = c.itlb[((rip >> 12) + 1) & (kItlbEntries - 1)];
    if (second.tag != (rip | kPageMask) + 1 || (second.phys_page & ~kPageMask) != block->phys2)
      return nullptr;
  }
  return block;
}

// --- decode.cc
// --------------------------------------------------------------------------------------

// Decodes a block from `bytes` (what is left of its page from the entry on, or, for an instruction
// that crosses pages, 15 bytes gathered from both). Returns null only if the first instruction
// needs more bytes than given. `entry` is the block's entry address (RIP).
struct DecodeRequest {
  const uint8_t* bytes = nullptr;
  unsigned available = 0;
  bool gathered = false;  // a crossing instruction: one instruction only
};
Block* decode_block(Cpu& c, CodeCache& cache, const DecodeRequest& request);

}  // namespace us::hv
