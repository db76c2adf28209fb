#include "hv/devices/dispatch.h"

#include <algorithm>

#include "base/check.h"

namespace us::hv {

void PioMap::add(Range range) {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), range.first,
                       [](uint16_t port, const Range& other) { return port < other.first; });
  US_CHECK(after == ranges_.end() || range.last < after->first);
  US_CHECK(after == ranges_.begin() || (after - 1)->last < range.first);
  ranges_.insert(after, range);
}

const PioMap::Range* PioMap::find(uint16_t port) const {
  auto after = std::upper_bound(ranges_.begin(), ranges_.end(), port,
                                [](uint16_t p, const Range& range) { return p < range.first; });
  if (after == ranges_.begin()) return nullptr;
  --after;
  return port <= after->last ? &*after : nullptr;
}

void MmioMap::add(Range range) {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), range.first,
                       [](uint64_t address, const Range& other) { return address < other.first; });
  ranges_.insert(after, range);
}

const MmioMap::Range* MmioMap::find(uint64_t address, unsigned size) const {
  auto after = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                [](uint64_t a, const Range& range) { return a < range.first; });
  if (after == ranges_.begin()) return nullptr;
  --after;
  return address + (size - 1) <= after->last ? &*after : nullptr;
}

}  // namespace us::hv
