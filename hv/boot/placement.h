// Puts image segments into guest memory and keeps track of what is taken.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "hv/boot/elf.h"
#include "hv/core/memory.h"

namespace us::hv {

class Placement {
 public:
  // Segments may lie from kImageBase on and, if `low_end` is not 0, in [low_base, low_end).
  Placement(GuestMemory& memory, std::string image_name, uint64_t low_base = 0,
            uint64_t low_end = 0)
      : memory_(memory),
        image_name_(std::move(image_name)),
        low_base_(low_base),
        low_end_(low_end) {}

  // All segments, or an error: BOOT-009, BOOT-010. Nothing is written before all are checked.
  Status place(const std::vector<ImageSegment>& segments);

  // An initrd as high as possible in low memory, page aligned, its last byte not above
  // `highest`. Returns its address. Error: BOOT-011.
  Result<uint64_t> place_initrd(ByteSpan initrd, uint64_t highest, const std::string& name);

  // Keeps [kImageBase, end) free of the initrd although no segment fills it.
  void reserve_up_to(uint64_t end) { end_ = std::max(end_, end); }

  bool covers(uint64_t address) const;
  // First byte after the highest segment placed.
  uint64_t end() const { return end_; }

 private:
  struct Range {
    uint64_t base, end;
  };
  Status check(const ImageSegment& segment);

  GuestMemory& memory_;
  std::string image_name_;
  uint64_t low_base_, low_end_;
  std::vector<Range> ranges_;
  uint64_t end_ = 0;
};

}  // namespace us::hv
