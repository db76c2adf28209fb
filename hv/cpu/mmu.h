// Inside of the memory management unit: what mmu_walk.cc, tlb.cc and mmu.cc share.
#pragma once

#include <cstdint>
#include <cstring>

#include "hv/cpu/access.h"
#include "hv/cpu/cpu.h"

namespace us::hv {

constexpr uint64_t kPhysicalBits = 40;  // MAXPHYADDR as CPUID 0x80000008 says
constexpr uint64_t kPhysicalMask = ((uint64_t{1} << kPhysicalBits) - 1) & ~kPageMask;

// Bits of TlbEntry::phys_page and ItlbEntry::phys_page below the page address.
constexpr uint64_t kTlbGlobal = 1, kTlbWritable = 2, kTlbLarge = 4;

// Page-fault error code. SDM 3A 4.7, figure 4-12.
namespace fault_code {
constexpr uint32_t kPresent = 1, kWrite = 2, kUser = 4, kReserved = 8, kFetch = 16;
}

inline bool canonical(uint64_t va) {
  const auto top = static_cast<int64_t>(va) >> 47;
  return top == 0 || top == -1;
}
inline bool long_mode(const Cpu& c) { return (c.efer & efer::kLma) != 0; }

// One look through the guest's tables, with nothing changed yet.
struct Walk {
  uint64_t phys = 0;
  uint64_t entry_at[4] = {};  // physical addresses of the entries used, top first
  uint64_t entry[4] = {};
  unsigned levels = 0;
  unsigned entry_bytes = 8;
  bool user = true, writable = true, no_execute = false;  // rights combined over the levels
  bool global = false, large = false;
  uint32_t error = 0;  // on failure: kPresent and kReserved bits

  bool dirty() const { return levels == 0 || (entry[levels - 1] & 0x40) != 0; }
};
// Finds the mapping, whatever its rights. False: not mapped (w.error), or not canonical.
bool walk_tables(const Cpu& c, uint64_t va, Walk& w);

// Who accesses, and how.
struct Rights {
  Access access = Access::kRead;
  bool user = false;
  bool smap = false;  // supervisor data accesses to user pages fault
};
// Walks, checks rights, sets A and D. False: #PF or #GP recorded, or (only if `may_step`)
// needs_step because the tables lie in decoded code.
bool walk_and_mark(Cpu& c, uint64_t va, const Rights& rights, bool may_step, Walk& w);
// Whether stores by `user` would be allowed through this mapping (D aside).
bool store_allowed(const Cpu& c, const Walk& w, bool user);

// Where one page's data is.
struct Place {
  uint64_t phys = 0;
  uint8_t* host = nullptr;  // null: not RAM
};
// Translates through a bank, filling it. False as walk_and_mark.
bool resolve(Cpu& c, TlbBank bank, uint64_t va, bool write, bool may_step, Place& out);
inline TlbBank current_bank(const Cpu& c) {
  return static_cast<TlbBank>((c.dtlb - &c.tlb[0][0]) / kTlbEntries);
}

// Stores into RAM outside the stepper's rules: marks the page dirty and drops decoded code it hits.
void write_ram(Cpu& c, uint64_t phys, uint8_t* host, const void* in, unsigned size);
// Whether the page holds decoded code that a store there could change.
bool code_overlaps(const Cpu& c, uint64_t phys, unsigned size);

// Put an entry where resolve() and fetch_page() look for one; phys_page with its flags.
void keep_translation(Cpu& c, TlbBank bank, uint64_t page, uint64_t phys_page, uint8_t* host_page);
void keep_code_translation(Cpu& c, unsigned bank, uint64_t page, uint64_t phys_page,
                           CodePage* code);

// A store of any size up to two pages with the rights of `bank`; never needs_step.
bool write_through(Cpu& c, TlbBank bank, uint64_t va, const void* in, unsigned size);
bool read_through(Cpu& c, TlbBank bank, uint64_t va, void* out, unsigned size);

// Straight to the bytes if this bank may, without a call; null: the functions above know more.
inline uint8_t* cached_read(Cpu& c, TlbBank bank, uint64_t va, unsigned size) {
  const TlbEntry& e = c.tlb[bank][(va >> 12) & (kTlbEntries - 1)];
  return e.read_tag == ((va + (size - 1)) & ~kPageMask) ? host_of(e, va) : nullptr;
}
inline uint8_t* cached_write(Cpu& c, TlbBank bank, uint64_t va, unsigned size) {
  const TlbEntry& e = c.tlb[bank][(va >> 12) & (kTlbEntries - 1)];
  return e.write_tag == ((va + (size - 1)) & ~kPageMask) ? host_of(e, va) : nullptr;
}
// read_system for a fixed size: descriptors, gates and stacks of every system call and interrupt.
template <class T>
inline bool read_table(Cpu& c, uint64_t va, T& out) {
  const uint8_t* at = cached_read(c, kBankSupervisor, va, sizeof out);
  if (at == nullptr) return read_system(c, va, &out, sizeof out);
  std::memcpy(&out, at, sizeof out);
  return true;
}

// Loads the four PAE page-directory-pointer entries that CR3 (as given) points to; false: #GP
// recorded.
bool load_pdptes(Cpu& c, uint64_t cr3);

}  // namespace us::hv
