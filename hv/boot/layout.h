// Where the loader puts its own structures, all below 640 KiB, and the memory map told to guests.
#pragma once

#include <cstdint>
#include <vector>

#include "base/types.h"
#include "hv/core/memory.h"

namespace us::hv {

constexpr uint64_t kBootGdt = 0x500;      // five descriptors and the TSS's upper half
constexpr uint64_t kBootStack = 0x6000;   // grows down
constexpr uint64_t kBootInfo = 0x6000;    // hvm_start_info or Multiboot information, one page
constexpr uint64_t kBootParams = 0x7000;  // boot_params ("zero page") or Multiboot's map, one page
constexpr uint64_t kBootMemoryMap = 0x8000;   // memory map of PVH, one page
constexpr uint64_t kBootPageTables = 0x9000;  // PML4, PDPT, four page directories
constexpr uint64_t kBootCmdline = 0x20000;    // at most kCmdlineRoom bytes with the final zero
constexpr uint64_t kCmdlineRoom = 0x1000;
// Free for small Multiboot images, which go on in real mode: no page tables lie there for them.
constexpr uint64_t kLowImageBase = 0x8000;
constexpr uint64_t kLowImageEnd = kBootCmdline;

constexpr uint64_t kLowMemoryEnd = 0x9fc00;    // usable below; the last KiB is the EBDA's place
constexpr uint64_t kFirmwareTables = 0xe0000;  // reserved up to 1 MiB: ACPI tables
constexpr uint64_t kImageBase = 0x100000;      // no other image may lie below

// Types are those of E820, which PVH and Multiboot share: 1 usable, 2 reserved.
enum class MemoryType : uint32_t { kUsable = 1, kReserved = 2 };

struct MemoryRange {
  uint64_t base = 0;
  uint64_t size = 0;
  MemoryType type = MemoryType::kUsable;
};

// Ascending, without overlaps.
std::vector<MemoryRange> memory_map(const GuestMemory& memory);

}  // namespace us::hv
