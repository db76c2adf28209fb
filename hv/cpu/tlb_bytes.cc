// The translation caches as bytes: by bank the number of its entries, then tag and page of each.
// Where an entry lies follows from its tag, what it points to from its page. Whether a store may
// go direct is not kept: the next store finds out again, and the guest cannot tell.
#include "hv/cpu/code_cache.h"
#include "hv/cpu/mmu.h"
#include "hv/cpu/state_bytes.h"

namespace us::hv {
namespace {

constexpr uint64_t kDataFlags = kTlbGlobal | kTlbWritable | kTlbLarge;
constexpr uint64_t kCodeFlags = kTlbGlobal | kTlbLarge;

uint64_t tag_of(const TlbEntry& e) { return e.read_tag; }
uint64_t tag_of(const ItlbEntry& e) { return e.tag; }

template <class Entry, size_t kCount>
void put_bank(const Entry (&bank)[kCount], ByteWriter& out) {
  uint16_t count = 0;
  for (const Entry& e : bank)
    count = static_cast<uint16_t>(count + (tag_of(e) != TlbEntry::kNoTag));
  out.put(count);
  for (const Entry& e : bank) {
    if (tag_of(e) == TlbEntry::kNoTag) continue;
    out.put(tag_of(e));
    out.put(e.phys_page);
  }
}

// Calls `take(tag, phys_page)` for each entry; false: not what put_bank writes.
template <class Entry, size_t kCount, class Take>
bool get_bank(const Entry (&bank)[kCount], ByteReader& in, uint64_t flags, const Take& take) {
  const uint16_t count = in.get<uint16_t>();
  if (count > kCount) return false;
  for (uint16_t i = 0; i < count; ++i) {
    const uint64_t tag = in.get<uint64_t>(), phys_page = in.get<uint64_t>();
    const bool known = (tag & kPageMask) == 0 && (phys_page & kPageMask & ~flags) == 0;
    if (in.failed() || !known || tag_of(bank[(tag >> 12) & (kCount - 1)]) != TlbEntry::kNoTag)
      return false;
    if (!take(tag, phys_page)) return false;
  }
  return true;
}

bool get_data_bank(Cpu& c, unsigned bank, ByteReader& in) {
  return get_bank(c.tlb[bank], in, kDataFlags, [&](uint64_t tag, uint64_t phys_page) {
    const uint64_t index = c.memory.page_index(GuestPhys(phys_page & ~kPageMask));
    if (index == GuestMemory::kNoPage) return false;
    keep_translation(c, static_cast<TlbBank>(bank), tag, phys_page, c.memory.page_host(index));
    return true;
  });
}

bool get_code_bank(Cpu& c, unsigned bank, ByteReader& in) {
  return get_bank(c.itlb_bank[bank], in, kCodeFlags, [&](uint64_t tag, uint64_t phys_page) {
    keep_code_translation(c, bank, tag, phys_page, c.code->page_of(phys_page & ~kPageMask));
    return true;
  });
}

bool get_banks(Cpu& c, ByteReader& in) {
  for (unsigned bank = 0; bank < kBankCount; ++bank)
    if (!get_data_bank(c, bank, in)) return false;
  for (unsigned bank = 0; bank < 2; ++bank)
    if (!get_code_bank(c, bank, in)) return false;
  return in.at_end() && !in.failed();
}

}  // namespace

void put_translations(const Cpu& c, ByteWriter& out) {
  for (const auto& bank : c.tlb) put_bank(bank, out);
  for (const auto& bank : c.itlb_bank) put_bank(bank, out);
}

Status get_translations(Cpu& c, ByteReader& in) {
  if (in.at_end() || get_banks(c, in)) return Done{};
  flush_tlb_all(c);
  return UserError{.id = "SNAP-010",
                   .exit_code = ExitCode::kLogUnreadable,
                   .what = "processor state is damaged",
                   .seen = "cached translations that no processor can have",
                   .needed = "the state as it was saved",
                   .mend = "take the snapshot again"};
}

}  // namespace us::hv
