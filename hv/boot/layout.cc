#include "hv/boot/layout.h"

namespace us::hv {

std::vector<MemoryRange> memory_map(const GuestMemory& memory) {
  std::vector<MemoryRange> map = {
      {0, kLowMemoryEnd, MemoryType::kUsable},
      {kLowMemoryEnd, 0xa0000 - kLowMemoryEnd, MemoryType::kReserved},
      {kFirmwareTables, kImageBase - kFirmwareTables, MemoryType::kReserved},
  };
  if (memory.low_size() > kImageBase)
    map.push_back({kImageBase, memory.low_size() - kImageBase, MemoryType::kUsable});
  if (memory.high_size() != 0)
    map.push_back({GuestMemory::kHighBase, memory.high_size(), MemoryType::kUsable});
  return map;
}

}  // namespace us::hv
