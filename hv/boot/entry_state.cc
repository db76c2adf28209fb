// Descriptors, page tables and control registers of the two ways in.
#include "hv/boot/layout.h"
#include "hv/boot/load_context.h"

namespace us::hv {

namespace {

constexpr uint64_t kCr0Protected = 0x11;    // PE, ET. SDM 3A 2.5
constexpr uint64_t kCr0Long = 0x8005'0033;  // PG AM WP NE ET MP PE
constexpr uint64_t kCr4Pae = 1 << 5;
constexpr uint64_t kEferLong = (1 << 8) | (1 << 10);  // LME, LMA. SDM 3A 2.2.1
constexpr uint64_t kPresentWritable = 3;
constexpr uint64_t kLargePage = 0x83;  // present, writable, 2 MiB
constexpr unsigned kEntries = 512;
constexpr unsigned kDirectories = 4;  // 1 GiB each

// Flat descriptors, accessed bit set as a processor that loaded them would leave it. SDM 3A 3.4.5.
constexpr uint64_t kCode64 = 0x00af'9b00'0000'ffff;
constexpr uint64_t kCode32 = 0x00cf'9b00'0000'ffff;
constexpr uint64_t kData = 0x00cf'9300'0000'ffff;
constexpr uint64_t kTask = 0x0000'8b00'0000'0067;

void put(GuestMemory& memory, uint64_t address, const ByteWriter& bytes) {
  US_CHECK(memory.write(GuestPhys(address), bytes.bytes()));
}

void write_gdt(GuestMemory& memory, BootState& state) {
  ByteWriter gdt;
  for (const uint64_t entry :
       {uint64_t{0}, uint64_t{0}, state.long_mode ? kCode64 : kCode32, kData, kTask, uint64_t{0}})
    gdt.put(entry);
  put(memory, kBootGdt, gdt);
  state.gdt_base = kBootGdt;
  state.gdt_limit = static_cast<uint16_t>(gdt.size() - 1);
}

// PML4 -> PDPT -> four directories of 2 MiB pages.
void write_page_tables(GuestMemory& memory) {
  const uint64_t pdpt = kBootPageTables + kPageSize;
  const uint64_t directories = pdpt + kPageSize;
  ByteWriter tables;
  for (unsigned i = 0; i < kEntries; ++i) tables.put(i == 0 ? pdpt | kPresentWritable : 0);
  for (unsigned i = 0; i < kEntries; ++i)
    tables.put(i < kDirectories ? (directories + i * kPageSize) | kPresentWritable : 0);
  for (uint64_t i = 0; i < kDirectories * kEntries; ++i) tables.put((i << 21) | kLargePage);
  put(memory, kBootPageTables, tables);
}

}  // namespace

BootState long_mode_state(GuestMemory& memory, uint64_t rip) {
  BootState state;
  state.long_mode = true;
  state.rip = rip;
  state.gpr[4] = kBootStack;
  state.cr0 = kCr0Long;
  state.cr3 = kBootPageTables;
  state.cr4 = kCr4Pae;
  state.efer = kEferLong;
  write_gdt(memory, state);
  write_page_tables(memory);
  return state;
}

BootState protected_mode_state(GuestMemory& memory, uint64_t rip) {
  BootState state;
  state.rip = rip;
  state.gpr[4] = kBootStack;
  state.cr0 = kCr0Protected;
  write_gdt(memory, state);
  return state;
}

}  // namespace us::hv
