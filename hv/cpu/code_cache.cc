#include "hv/cpu/code_cache.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <sys/mman.h>

#include "base/check.h"

namespace us::hv {
namespace {

constexpr size_t kArenaBytes = size_t{96} << 20;

void* reserve(size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  US_CHECK(at != MAP_FAILED, "cannot reserve {} bytes for the code cache", bytes);
  madvise(at, bytes, MADV_HUGEPAGE);
  return at;
}

bool touches(const Block& b, uint64_t begin, uint64_t end) {
  if (b.crosses_page) {
    const uint64_t first_end = (b.phys | kPageMask) + 1;
    const uint64_t second_size = b.phys + b.size - first_end;
    return (begin < first_end && end > b.phys) || (begin < b.phys2 + second_size && end > b.phys2);
  }
  return begin < b.phys + b.size && end > b.phys;
}

bool single(const Block& b) { return (b.mode.bits & Mode::kSingle) != 0; }

// Handlers look at an address's first block only (quick_find), so the mode in use belongs there.
// The stepper's blocks never do: after one step of a loop's first instruction the loop would leave
// its chain on every turn.
void put_first(Block*& first, Block* block) {
  if (first == block || single(*block)) return;
  Block** at = &first;
  while (*at != block) at = &(*at)->next_same_address;
  *at = block->next_same_address;
  block->next_same_address = first;
  first = block;
}

void mark_lines(CodePage* page, uint64_t first_offset, uint64_t last_offset) {
  for (uint64_t line = first_offset >> 4; line <= last_offset >> 4; ++line)
    page->lines[line >> 6] |= uint64_t{1} << (line & 63);
}

}  // namespace

CodeCache::CodeCache(Cpu& cpu)
    : cpu_(cpu), page_count_(cpu.memory.page_count()), outside_(new CodePage{}) {
  pages_ = static_cast<CodePage*>(reserve(page_count_ * sizeof(CodePage)));
  arena_ = static_cast<uint8_t*>(reserve(kArenaBytes));
  cpu_.memory.set_code_watcher(this);
}

CodeCache::~CodeCache() {
  cpu_.memory.set_code_watcher(nullptr);
  munmap(pages_, page_count_ * sizeof(CodePage));
  munmap(arena_, kArenaBytes);
}

CodePage* CodeCache::page_of(uint64_t phys) {
  const uint64_t index = cpu_.memory.page_index(GuestPhys(phys));
  return index == GuestMemory::kNoPage ? outside_.get() : &pages_[index];
}

Block* CodeCache::allocate(unsigned ops) {
  const size_t bytes = ((sizeof(Block) + 31) & ~size_t{31}) + ops * sizeof(Op);
  US_CHECK(arena_used_ + bytes <= kArenaBytes, "find() keeps room for one block");
  uint8_t* at = arena_ + arena_used_;
  arena_used_ += bytes;
  Block* block = new (at) Block{};
  block->ops = reinterpret_cast<Op*>(at + ((sizeof(Block) + 31) & ~size_t{31}));
  return block;
}

Block* CodeCache::find() {
  Cpu& c = cpu_;
  uint64_t linear = c.rip;
  if (!fetch_linear(c, linear)) return nullptr;
  ItlbEntry& entry = c.itlb[(linear >> 12) & (kItlbEntries - 1)];
  if (entry.tag != (linear & ~kPageMask)) {
    uint64_t phys;
    if (!fetch_page(c, linear, phys)) return nullptr;
    entry.page = page_of(phys);
  }
  const uint64_t phys = (entry.phys_page & ~kPageMask) | (linear & kPageMask);
  for (Block* b = entry.page->at[linear & kPageMask]; b != nullptr; b = b->next_same_address) {
    if (b->mode != c.mode) continue;
    put_first(entry.page->at[linear & kPageMask], b);
    if (!b->crosses_page) return b;
    // The second page may have been mapped elsewhere since.
    uint64_t phys2;
    if (!fetch_page(c, (linear | kPageMask) + 1, phys2)) return nullptr;
    c.itlb[((linear >> 12) + 1) & (kItlbEntries - 1)].page = page_of(phys2);
    if ((phys2 & ~kPageMask) == b->phys2) return b;
    drop(b);
    break;
  }
  return decode(linear, phys);
}

Block* CodeCache::decode(uint64_t linear, uint64_t phys) {
  Cpu& c = cpu_;
  if (arena_used_ + sizeof(Block) + 32 + (kMaxOps + 2) * sizeof(Op) > kArenaBytes) clear();
  if (!c.memory.contains(GuestPhys(phys), 1)) {
    // Nothing is there to run; real hardware would fetch all ones, which is no instruction.
    raise(c, kInvalidOpcode);
    return nullptr;
  }
  const auto left = static_cast<unsigned>(kPageSize - (linear & kPageMask));
  Block* block =
      decode_block(c, *this, {.bytes = c.memory.host(GuestPhys(phys)), .available = left});
  if (block == nullptr) {
    uint64_t phys2;
    if (!fetch_page(c, (linear | kPageMask) + 1, phys2)) return nullptr;
    phys2 &= ~kPageMask;
    c.itlb[((linear >> 12) + 1) & (kItlbEntries - 1)].page = page_of(phys2);
    uint8_t gathered[16] = {};
    std::memset(gathered, 0xff, sizeof gathered);
    std::memcpy(gathered, c.memory.host(GuestPhys(phys)), left);
    if (c.memory.contains(GuestPhys(phys2), 16))
      std::memcpy(gathered + left, c.memory.host(GuestPhys(phys2)), sizeof gathered - left);
    block = decode_block(c, *this, {.bytes = gathered, .available = 15, .gathered = true});
    US_CHECK(block != nullptr, "15 bytes always decode to something");
    block->crosses_page = block->size > left;
    block->phys2 = phys2;
  }
  block->phys = phys;
  block->mode = c.mode;
  insert(block);
  return block;
}

void CodeCache::insert(Block* block) {
  CodePage* page = page_of(block->phys);
  const uint64_t offset = block->phys & kPageMask;
  Block** at = &page->at[offset];
  if (*at != nullptr && single(*block)) at = &(*at)->next_same_address;
  block->next_same_address = *at;
  *at = block;
  block->next_in_page = page->blocks;
  page->blocks = block;
  mark_lines(page, offset, std::min(offset + std::max(block->size, 1u) - 1, kPageMask));
  forbid_writes(block->phys);
  if (block->crosses_page && cpu_.memory.contains(GuestPhys(block->phys2), 1)) {
    CodePage* second = page_of(block->phys2);
    block->next_crossing = second->crossing;
    second->crossing = block;
    mark_lines(second, 0, block->phys + block->size - ((block->phys | kPageMask) + 1) - 1);
    forbid_writes(block->phys2);
  }
  ++counters_.blocks_decoded;
  if (observer_ != nullptr) observer_->inserted(*block);
}

void CodeCache::forbid_writes(uint64_t phys) {
  uint8_t& flags = cpu_.memory.page_flags()[cpu_.memory.page_index(GuestPhys(phys))];
  if ((flags & GuestMemory::kPageHasCode) != 0) return;
  flags |= GuestMemory::kPageHasCode;
  forbid_direct_writes(cpu_, phys & ~kPageMask);
}

bool CodeCache::overlaps(uint64_t phys, unsigned size) const {
  const uint64_t index = cpu_.memory.page_index(GuestPhys(phys));
  if (index == GuestMemory::kNoPage || size == 0) return false;
  const CodePage& page = pages_[index];
  const uint64_t first = (phys & kPageMask) >> 4;
  const uint64_t last = std::min((phys & kPageMask) + size - 1, kPageMask) >> 4;
  for (uint64_t line = first; line <= last; ++line)
    if ((page.lines[line >> 6] >> (line & 63)) & 1) return true;
  return false;
}

void CodeCache::written(uint64_t phys, unsigned size) {
  if (!overlaps(phys, size)) return;
  CodePage* page = page_of(phys);
  const uint64_t end = phys + size;
  for (bool again = true; again;) {  // drop() edits the lists: start over after each
    again = false;
    for (Block* b = page->blocks; b != nullptr && !again; b = b->next_in_page)
      if (touches(*b, phys, end)) drop(b), again = true;
    for (Block* b = page->crossing; b != nullptr && !again; b = b->next_crossing)
      if (touches(*b, phys, end)) drop(b), again = true;
  }
  refresh_lines(page);
}

void CodeCache::drop(Block* block) {
  if (observer_ != nullptr) observer_->dropping(*block);
  CodePage* page = page_of(block->phys);
  Block** at = &page->at[block->phys & kPageMask];
  while (*at != block) at = &(*at)->next_same_address;
  *at = block->next_same_address;
  Block** in_page = &page->blocks;
  while (*in_page != block) in_page = &(*in_page)->next_in_page;
  *in_page = block->next_in_page;
  if (block->crosses_page && cpu_.memory.contains(GuestPhys(block->phys2), 1)) {
    Block** crossing = &page_of(block->phys2)->crossing;
    while (*crossing != block) crossing = &(*crossing)->next_crossing;
    *crossing = block->next_crossing;
  }
  block->valid = false;
  // Links never leave a page, so only blocks of this page can point here.
  for (Block* b = page->blocks; b != nullptr; b = b->next_in_page) {
    Links& links = links_of(&b->ops[b->op_count - 1]);
    if (links.taken == block) links.taken = nullptr;
    if (links.fall_through == block) links.fall_through = nullptr;
  }
  cpu_.link_slot = nullptr;
  ++counters_.blocks_dropped;
}

void CodeCache::refresh_lines(CodePage* page) {
  std::fill(std::begin(page->lines), std::end(page->lines), 0);
  for (Block* b = page->blocks; b != nullptr; b = b->next_in_page) {
    const uint64_t offset = b->phys & kPageMask;
    mark_lines(page, offset, std::min(offset + std::max(b->size, 1u) - 1, kPageMask));
  }
  for (Block* b = page->crossing; b != nullptr; b = b->next_crossing)
    mark_lines(page, 0, b->phys + b->size - ((b->phys | kPageMask) + 1) - 1);
}

void CodeCache::clear() {
  madvise(pages_, page_count_ * sizeof(CodePage), MADV_DONTNEED);
  madvise(arena_, arena_used_, MADV_DONTNEED);
  arena_used_ = 0;
  for (uint64_t i = 0; i < page_count_; ++i)
    cpu_.memory.page_flags()[i] &= static_cast<uint8_t>(~GuestMemory::kPageHasCode);
  cpu_.link_slot = nullptr;
  if (observer_ != nullptr) observer_->cleared();
  ++counters_.clears;
}

}  // namespace us::hv
