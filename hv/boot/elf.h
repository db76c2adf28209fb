// The part of ELF (32- and 64-bit, little-endian, x86) that loading needs. System V gABI 4.1 ch. 5.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace us::hv {

// One thing to be placed in memory: `bytes`, then zeros up to memory_size.
struct ImageSegment {
  uint64_t physical = 0;
  uint64_t memory_size = 0;  // >= bytes.size(), not zero
  ByteSpan bytes;            // into the image
};

struct ElfImage {
  bool is_64 = false;
  uint64_t entry = 0;
  std::vector<ImageSegment> segments;  // PT_LOAD, in file order
  std::optional<uint64_t> pvh_entry;   // XEN_ELFNOTE_PHYS32_ENTRY
};

bool looks_like_elf(ByteSpan image);

// Checks every offset and size against the image. `name` is for messages. Errors: BOOT-004,
// BOOT-008.
Result<ElfImage> parse_elf(ByteSpan image, const std::string& name);

}  // namespace us::hv
