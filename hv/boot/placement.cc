#include "hv/boot/placement.h"

#include <algorithm>
#include <fmt/format.h>

#include "hv/boot/boot_errors.h"
#include "hv/boot/layout.h"

namespace us::hv {

namespace {

// Reboots load into used memory, so what should read as zero is written.
bool write_zeros(GuestMemory& memory, uint64_t address, uint64_t size) {
  static constexpr uint8_t kZeros[64 * 1024] = {};
  while (size != 0) {
    const uint64_t piece = std::min<uint64_t>(size, sizeof kZeros);
    if (!memory.write(GuestPhys(address), ByteSpan(kZeros, piece))) return false;
    address += piece;
    size -= piece;
  }
  return true;
}

}  // namespace

Status Placement::check(const ImageSegment& segment) {
  const bool low = segment.physical >= low_base_ && segment.physical < low_end_ &&
                   segment.memory_size <= low_end_ - segment.physical;
  if (segment.physical < kImageBase && !low)
    return boot_error(
        "BOOT-010",
        fmt::format("{} wants a segment below 1 MiB, where boot structures lie", image_name_),
        fmt::format("address {:#x}", segment.physical),
        fmt::format("addresses from {:#x}", kImageBase), "link it higher");
  if (!memory_.contains(GuestPhys(segment.physical), segment.memory_size))
    return boot_error("BOOT-009",
                      fmt::format("{} does not fit into the machine's memory", image_name_),
                      fmt::format("a segment of {} bytes at {:#x}; memory of {} MiB",
                                  segment.memory_size, segment.physical, memory_.size() >> 20),
                      "every segment inside memory", "give the machine more memory");
  const Range range{segment.physical, segment.physical + segment.memory_size};
  for (const Range& other : ranges_)
    if (range.base < other.end && other.base < range.end)
      return boot_error(
          "BOOT-010", fmt::format("{} has overlapping segments", image_name_),
          fmt::format("{:#x}-{:#x} and {:#x}-{:#x}", other.base, other.end, range.base, range.end),
          "segments apart from each other", "give an unharmed kernel");
  ranges_.push_back(range);
  end_ = std::max(end_, range.end);
  return Done{};
}

Status Placement::place(const std::vector<ImageSegment>& segments) {
  for (const ImageSegment& segment : segments)
    if (Status status = check(segment); !status) return status;
  for (const ImageSegment& segment : segments) {
    const bool copied =
        segment.bytes.empty() || memory_.write(GuestPhys(segment.physical), segment.bytes);
    US_CHECK(copied);
    US_CHECK(write_zeros(memory_, segment.physical + segment.bytes.size(),
                         segment.memory_size - segment.bytes.size()));
  }
  return Done{};
}

Result<uint64_t> Placement::place_initrd(ByteSpan initrd, uint64_t highest,
                                         const std::string& name) {
  const uint64_t top = std::min(memory_.low_size(), highest + 1) & ~kPageMask;
  const uint64_t bottom = (std::max(end_, kImageBase) + kPageMask) & ~kPageMask;
  if (top < bottom || initrd.size() > top - bottom)
    return boot_error(
        "BOOT-011", fmt::format("initrd {} does not fit beside the kernel", name),
        fmt::format("{} bytes; free are {}", initrd.size(), top < bottom ? 0 : top - bottom),
        "an initrd that fits into the memory left", "give the machine more memory");
  const uint64_t address = (top - initrd.size()) & ~kPageMask;
  US_CHECK(memory_.write(GuestPhys(address), initrd));
  return address;
}

bool Placement::covers(uint64_t address) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& range) {
    return range.base <= address && address < range.end;
  });
}

}  // namespace us::hv
