// Walks of the guest's page tables. SDM 3A chapter 4.
#include <cstring>

#include "hv/cpu/code_cache.h"
#include "hv/cpu/mmu.h"

namespace us::hv {
namespace {

constexpr uint64_t kPresentBit = 1, kWritableBit = 2, kUserBit = 4, kAccessedBit = 0x20,
                   kDirtyBit = 0x40, kLargeBit = 0x80, kGlobalBit = 0x100, kNoExecute = 1ull << 63;

// Tables outside RAM read as all ones, which no paging mode accepts.
template <class T>
T read_entry(const Cpu& c, uint64_t phys) {
  const uint64_t index = c.memory.page_index(GuestPhys(phys));
  if (index == GuestMemory::kNoPage) return static_cast<T>(~T{0});
  T value;
  std::memcpy(&value, c.memory.page_host(index) + (phys & kPageMask), sizeof value);
  return value;
}

void record(Walk& w, uint64_t at, uint64_t entry) {
  w.entry_at[w.levels] = at;
  w.entry[w.levels++] = entry;
  w.user = w.user && (entry & kUserBit) != 0;
  w.writable = w.writable && (entry & kWritableBit) != 0;
}

bool missing(Walk& w, uint32_t error) {
  w.error = error;
  return false;
}

void finish(const Cpu& c, Walk& w, uint64_t entry, uint64_t va, uint64_t page_mask,
            uint64_t frame) {
  w.phys = (frame & ~page_mask) | (va & page_mask);
  w.large = page_mask != kPageMask;
  w.global = (entry & kGlobalBit) != 0 && (c.cr4 & cr4::kPge) != 0;
}

// Reserved bits of a 64-bit entry. SDM 3A tables 4-9 to 4-11 (PAE) and 4-15 to 4-20 (4-level).
uint64_t reserved_bits(const Cpu& c, unsigned level, uint64_t entry) {
  uint64_t bits = ((uint64_t{1} << 52) - 1) & ~((uint64_t{1} << kPhysicalBits) - 1);
  if ((c.efer & efer::kNxe) == 0) bits |= kNoExecute;
  if (!long_mode(c)) bits |= 0x7ffull << 52;
  if (level == 3) return bits | kLargeBit;
  if (level > 0 && (entry & kLargeBit) != 0) bits |= level == 1 ? 0x1fe000 : 0x3fffe000;
  return bits;
}

// Levels `top` down to 0 of 64-bit entries; `table` is the physical address of the top table.
bool walk_wide(const Cpu& c, uint64_t va, uint64_t table, unsigned top, Walk& w) {
  w.entry_bytes = 8;
  for (unsigned level = top;; --level) {
    const uint64_t at = table + ((va >> (12 + 9 * level)) & 0x1ff) * 8;
    const uint64_t entry = read_entry<uint64_t>(c, at);
    if ((entry & kPresentBit) == 0) return missing(w, 0);
    if ((entry & reserved_bits(c, level, entry)) != 0)
      return missing(w, fault_code::kPresent | fault_code::kReserved);
    record(w, at, entry);
    w.no_execute = w.no_execute || (entry & kNoExecute) != 0;
    if (level == 0 || (entry & kLargeBit) != 0) {
      finish(c, w, entry, va, (uint64_t{1} << (12 + 9 * level)) - 1, entry & kPhysicalMask);
      return true;
    }
    table = entry & kPhysicalMask;
  }
}

// 32-bit paging with PSE-36. SDM 3A 4.3, tables 4-4 to 4-6.
bool walk_narrow(const Cpu& c, uint32_t va, Walk& w) {
  w.entry_bytes = 4;
  const uint64_t pde_at = (c.cr3 & 0xffff'f000) + (va >> 22) * 4;
  const uint64_t pde = read_entry<uint32_t>(c, pde_at);
  if ((pde & kPresentBit) == 0) return missing(w, 0);
  if ((pde & kLargeBit) != 0 && (c.cr4 & cr4::kPse) != 0) {
    constexpr uint64_t kReservedBit = uint64_t{1} << 21;  // bits 20:13 are address bits 39:32
    if ((pde & kReservedBit) != 0) return missing(w, fault_code::kPresent | fault_code::kReserved);
    record(w, pde_at, pde);
    finish(c, w, pde, va, 0x3f'ffff, (pde & 0xffc0'0000) | ((pde >> 13 & 0xff) << 32));
    return true;
  }
  record(w, pde_at, pde);
  const uint64_t pte_at = (pde & 0xffff'f000) + (va >> 12 & 0x3ff) * 4;
  const uint64_t pte = read_entry<uint32_t>(c, pte_at);
  if ((pte & kPresentBit) == 0) return missing(w, 0);
  record(w, pte_at, pte);
  finish(c, w, pte, va, kPageMask, pte & 0xffff'f000);
  return true;
}

uint32_t access_bits(const Cpu& c, const Rights& r) {
  uint32_t error = r.user ? fault_code::kUser : 0;
  if (r.access == Access::kWrite) error |= fault_code::kWrite;
  const bool reports_fetch =
      (c.cr4 & cr4::kSmep) != 0 || ((c.cr4 & cr4::kPae) != 0 && (c.efer & efer::kNxe) != 0);
  if (r.access == Access::kExecute && reports_fetch) error |= fault_code::kFetch;
  return error;
}

// SDM 3A 4.6.1.
bool allowed(const Cpu& c, const Walk& w, const Rights& r) {
  if (r.user && !w.user) return false;
  if (r.access == Access::kExecute)
    return !w.no_execute && (r.user || !w.user || (c.cr4 & cr4::kSmep) == 0);
  if (!r.user && w.user && r.smap) return false;
  return r.access == Access::kRead || store_allowed(c, w, r.user);
}

bool page_fault(Cpu& c, uint64_t va, uint32_t error) {
  c.cr2 = va;
  return raise(c, kPageFault, error);
}

// Sets A in every entry used and D in the last one if the access is a store.
bool mark(Cpu& c, Walk& w, bool write, bool may_step) {
  for (unsigned i = 0; i < w.levels; ++i) {
    const uint64_t wanted = kAccessedBit | (write && i + 1 == w.levels ? kDirtyBit : 0);
    const uint64_t updated = w.entry[i] | wanted;
    if (updated == w.entry[i]) continue;
    if (may_step && !c.stepping && code_overlaps(c, w.entry_at[i], w.entry_bytes))
      return needs_step(c);
    w.entry[i] = updated;
    const GuestPhys at(w.entry_at[i]);
    write_ram(c, at.value, c.memory.host(at), &updated, w.entry_bytes);
  }
  return true;
}

}  // namespace

bool store_allowed(const Cpu& c, const Walk& w, bool user) {
  return w.writable || (!user && (c.cr0 & cr0::kWp) == 0);
}

bool walk_tables(const Cpu& c, uint64_t va, Walk& w) {
  if ((c.cr0 & cr0::kPg) == 0) {
    w.phys = static_cast<uint32_t>(va);
    return true;
  }
  if (long_mode(c)) return canonical(va) && walk_wide(c, va, c.cr3 & kPhysicalMask, 3, w);
  const auto linear = static_cast<uint32_t>(va);
  if ((c.cr4 & cr4::kPae) == 0) return walk_narrow(c, linear, w);
  const uint64_t pdpte = c.pdpte[linear >> 30];
  if ((pdpte & kPresentBit) == 0) return missing(w, 0);
  return walk_wide(c, linear, pdpte & kPhysicalMask, 1, w);
}

bool walk_and_mark(Cpu& c, uint64_t va, const Rights& rights, bool may_step, Walk& w) {
  if (!walk_tables(c, va, w)) {
    if (long_mode(c) && !canonical(va)) return raise(c, kGeneralProtection, 0);
    return page_fault(c, va, w.error | access_bits(c, rights));
  }
  if (w.levels == 0) return true;  // paging is off
  if (!allowed(c, w, rights))
    return page_fault(c, va, fault_code::kPresent | access_bits(c, rights));
  return mark(c, w, rights.access == Access::kWrite, may_step);
}

Translation translate(Cpu& c, uint64_t va, Access access, bool user) {
  const bool smap = !user && (c.cr4 & cr4::kSmap) != 0 && (c.rflags_other & flag::kAc) == 0;
  const Rights rights{.access = access, .user = user, .smap = smap};
  Walk w;
  if (!walk_and_mark(c, va, rights, access != Access::kExecute, w)) return {};
  return {.ok = true,
          .global = w.global,
          .writable = w.dirty() && store_allowed(c, w, user),
          .phys = w.phys};
}

bool translate_quietly(const Cpu& c, uint64_t va, uint64_t& phys) {
  Walk w;
  if (!walk_tables(c, va, w)) return false;
  phys = w.phys;
  return true;
}

// SDM 3A 4.4.1, table 4-8.
bool load_pdptes(Cpu& c, uint64_t cr3) {
  constexpr uint64_t kReserved = 0x1e6 | ~((uint64_t{1} << kPhysicalBits) - 1);
  uint64_t entries[4];
  for (unsigned i = 0; i < 4; ++i) {
    entries[i] = read_entry<uint64_t>(c, (cr3 & 0xffff'ffe0) + i * 8);
    if ((entries[i] & kPresentBit) != 0 && (entries[i] & kReserved) != 0)
      return raise(c, kGeneralProtection, 0);
  }
  std::memcpy(c.pdpte, entries, sizeof entries);
  return true;
}

}  // namespace us::hv
