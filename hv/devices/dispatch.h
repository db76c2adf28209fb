// Which device answers at a port or an address: small tables, sorted, searched by halving.
#pragma once

#include <cstdint>
#include <vector>

#include "hv/devices/device.h"

namespace us::hv {

class PioMap {
 public:
  struct Range {
    uint16_t first = 0;
    uint16_t last = 0;
    unsigned width = 1;  // the widest access the device takes in one piece
    PioDevice* device = nullptr;
  };

  // Ranges must not overlap.
  void add(Range range);
  const Range* find(uint16_t port) const;

 private:
  std::vector<Range> ranges_;
};

class MmioMap {
 public:
  struct Range {
    uint64_t first = 0;
    uint64_t last = 0;
    MmioDevice* device = nullptr;
  };

  void clear() { ranges_.clear(); }
  // Where a guest maps ranges over one another, the one that starts higher wins.
  void add(Range range);
  // The range that holds all of [address, address + size), or nullptr.
  const Range* find(uint64_t address, unsigned size) const;

 private:
  std::vector<Range> ranges_;
};

}  // namespace us::hv
