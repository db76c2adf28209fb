// The translation caches: filling, finding, flushing. What they hold depends only on what the guest
// did, never on how it was run (in blocks or stepped), since guests can see stale entries through A
// and D bits that stay clear.
// A snapshot holds them for the same reason (tlb_bytes.cc).
#include <bit>

#include "hv/cpu/access.h"
#include "hv/cpu/code_cache.h"
#include "hv/cpu/debug.h"
#include "hv/cpu/mmu.h"

namespace us::hv {
namespace {

unsigned slot_of(uint64_t va, unsigned entries) {
  return static_cast<unsigned>((va >> 12) & (entries - 1));
}

void note_local(uint64_t* map, unsigned slot, bool local) {
  const uint64_t bit = uint64_t{1} << (slot & 63);
  map[slot >> 6] = local ? map[slot >> 6] | bit : map[slot >> 6] & ~bit;
}

uint64_t region_bit(uint64_t va) {
  const uint64_t region = va >> 30;
  return uint64_t{1} << ((region ^ (region >> 6) ^ (region >> 12)) & 63);
}

uint64_t entry_flags(const Walk& w) {
  return (w.global ? kTlbGlobal : 0) | (w.large ? kTlbLarge : 0);
}

void note_large(Cpu& c, uint64_t va, uint64_t phys_page) {
  if ((phys_page & kTlbLarge) != 0)
    c.large_regions[(phys_page & kTlbGlobal) != 0] |= region_bit(va);
}

void clear(TlbEntry& e) { e.read_tag = e.write_tag = TlbEntry::kNoTag; }
void clear(ItlbEntry& e) { e.tag = TlbEntry::kNoTag; }
uint64_t tag_of(const TlbEntry& e) { return e.read_tag; }
uint64_t tag_of(const ItlbEntry& e) { return e.tag; }

template <class Entry, size_t kCount>
void clear_local(Entry (&entries)[kCount], uint64_t (&local)[kCount / 64]) {
  for (size_t word = 0; word < kCount / 64; ++word) {
    for (uint64_t bits = local[word]; bits != 0; bits &= bits - 1)
      clear(entries[word * 64 + static_cast<size_t>(std::countr_zero(bits))]);
    local[word] = 0;
  }
}

// Every cached piece of a large page goes that lies in the same GiB as va: entries do not say how
// large their page was, and dropping too much is always allowed.
template <class Entry, size_t kCount>
void clear_large(Entry (&entries)[kCount], uint64_t va) {
  for (Entry& e : entries) {
    if ((e.phys_page & kTlbLarge) != 0 && tag_of(e) != TlbEntry::kNoTag &&
        (tag_of(e) >> 30) == (va >> 30))
      clear(e);
  }
}

// A store tag for a page that may be stored to directly; marks it dirty.
void grant_write(Cpu& c, TlbEntry& e, uint64_t page, uint64_t ram_index) {
  uint8_t& flags = c.memory.page_flags()[ram_index];
  flags |= GuestMemory::kPageDirty;
  if ((flags & GuestMemory::kPageHasCode) == 0) e.write_tag = page;
}

bool fill(Cpu& c, TlbBank bank, uint64_t va, bool write, bool may_step, Place& out) {
  const uint64_t page = va & ~kPageMask;
  const bool user = bank == kBankUser;
  const Rights rights{.access = write ? Access::kWrite : Access::kRead,
                      .user = user,
                      .smap = bank == kBankSupervisor && (c.cr4 & cr4::kSmap) != 0};
  Walk w;
  if (!walk_and_mark(c, va, rights, may_step, w)) return false;
  out = {.phys = w.phys, .host = nullptr};
  const uint64_t index = c.memory.page_index(GuestPhys(w.phys));
  if (index == GuestMemory::kNoPage) return true;  // a device: never cached
  uint8_t* host_page = c.memory.page_host(index);
  out.host = host_page + (va & kPageMask);
  if (data_watched(c)) return true;  // every access comes by mmu.cc, which looks
  TlbEntry& e = c.tlb[bank][slot_of(va, kTlbEntries)];
  const bool writable = w.dirty() && store_allowed(c, w, user);
  keep_translation(c, bank, page,
                   (w.phys & ~kPageMask) | entry_flags(w) | (writable ? kTlbWritable : 0),
                   host_page);
  // Reading alone must not make a clean page count as written.
  if (write || (writable && (c.memory.page_flags()[index] & GuestMemory::kPageDirty) ==
                                GuestMemory::kPageDirty))
    grant_write(c, e, page, index);
  return true;
}

}  // namespace

void keep_translation(Cpu& c, TlbBank bank, uint64_t page, uint64_t phys_page, uint8_t* host_page) {
  const unsigned slot = slot_of(page, kTlbEntries);
  c.tlb[bank][slot] = {.read_tag = page,
                       .write_tag = TlbEntry::kNoTag,
                       .delta = reinterpret_cast<uint64_t>(host_page) - page,
                       .phys_page = phys_page};
  note_local(c.tlb_local[bank], slot, (phys_page & kTlbGlobal) == 0);
  note_large(c, page, phys_page);
}

void keep_code_translation(Cpu& c, unsigned bank, uint64_t page, uint64_t phys_page,
                           CodePage* code) {
  const unsigned slot = slot_of(page, kItlbEntries);
  c.itlb_bank[bank][slot] = {.tag = page, .page = code, .phys_page = phys_page};
  note_local(c.itlb_local[bank], slot, (phys_page & kTlbGlobal) == 0);
  note_large(c, page, phys_page);
}

bool resolve(Cpu& c, TlbBank bank, uint64_t va, bool write, bool may_step, Place& out) {
  const uint64_t page = va & ~kPageMask;
  TlbEntry& e = c.tlb[bank][slot_of(va, kTlbEntries)];
  if (e.read_tag != page || (write && (e.phys_page & kTlbWritable) == 0))
    return fill(c, bank, va, write, may_step, out);
  out.phys = (e.phys_page & ~kPageMask) | (va & kPageMask);
  out.host = host_of(e, va);
  if (write && e.write_tag != page)
    grant_write(c, e, page, c.memory.page_index(GuestPhys(out.phys)));
  return true;
}

bool fetch_page(Cpu& c, uint64_t linear, uint64_t& phys) {
  if (!long_mode(c)) linear = static_cast<uint32_t>(linear);
  const uint64_t page = linear & ~kPageMask;
  const unsigned slot = slot_of(linear, kItlbEntries);
  ItlbEntry& e = c.itlb[slot];
  if (e.tag != page) {
    Walk w;
    if (!walk_and_mark(c, linear, {.access = Access::kExecute, .user = c.cpl == 3}, false, w))
      return false;
    e.tag = page;
    e.phys_page = (w.phys & ~kPageMask) | entry_flags(w);
    note_local(c.itlb_local[c.itlb == c.itlb_bank[1]], slot, !w.global);
    note_large(c, linear, e.phys_page);
  }
  phys = (e.phys_page & ~kPageMask) | (linear & kPageMask);
  return true;
}

void flush_tlb_all(Cpu& c) {
  for (unsigned bank = 0; bank < kBankCount; ++bank) {
    for (TlbEntry& e : c.tlb[bank]) clear(e);
    for (uint64_t& word : c.tlb_local[bank]) word = 0;
  }
  for (unsigned bank = 0; bank < 2; ++bank) {
    for (ItlbEntry& e : c.itlb_bank[bank]) clear(e);
    for (uint64_t& word : c.itlb_local[bank]) word = 0;
  }
  c.large_regions[0] = c.large_regions[1] = 0;
}

void flush_tlb_nonglobal(Cpu& c) {
  for (unsigned bank = 0; bank < kBankCount; ++bank) clear_local(c.tlb[bank], c.tlb_local[bank]);
  for (unsigned bank = 0; bank < 2; ++bank) clear_local(c.itlb_bank[bank], c.itlb_local[bank]);
  c.large_regions[0] = 0;
}

void flush_tlb_page(Cpu& c, uint64_t va) {
  const uint64_t page = va & ~kPageMask;
  for (auto& bank : c.tlb)
    if (bank[slot_of(va, kTlbEntries)].read_tag == page) clear(bank[slot_of(va, kTlbEntries)]);
  for (auto& bank : c.itlb_bank)
    if (bank[slot_of(va, kItlbEntries)].tag == page) clear(bank[slot_of(va, kItlbEntries)]);
  // SDM 3A 4.10.4.1: INVLPG drops all cached pieces of a page larger than 4 KiB.
  if (((c.large_regions[0] | c.large_regions[1]) & region_bit(va)) == 0) return;
  for (auto& bank : c.tlb) clear_large(bank, va);
  for (auto& bank : c.itlb_bank) clear_large(bank, va);
}

void forbid_direct_writes(Cpu& c, uint64_t phys_page) {
  for (auto& bank : c.tlb)
    for (TlbEntry& e : bank)
      if (((e.phys_page ^ phys_page) & ~kPageMask) == 0) e.write_tag = TlbEntry::kNoTag;
}

void drop_write_tags(Cpu& c) {
  for (auto& bank : c.tlb)
    for (TlbEntry& e : bank) e.write_tag = TlbEntry::kNoTag;
}

}  // namespace us::hv
