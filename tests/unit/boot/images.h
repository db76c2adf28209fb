// Small synthetic kernels for the loader tests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "hv/boot/boot.h"

namespace us::hv::testing {

struct Segment {
  uint64_t physical = 0;
  Bytes bytes = {};
  uint64_t memory_size = 0;  // 0: as bytes
};

struct ElfRecipe {
  bool is_64 = true;
  uint64_t entry = 0x100'0000;
  std::vector<Segment> segments = {{0x100'0000, Bytes(64, 0x90), 8192}};
  std::optional<uint64_t> pvh_entry = {};
  Bytes before_segments = {};  // bytes right after the program headers (a Multiboot header, say)
};

Bytes make_elf(const ElfRecipe& recipe);

enum class Packing { kXz, kZstd, kGzip, kLz4, kBzip2Magic, kNone };
Bytes pack(ByteSpan bytes, Packing packing);  // with the appended unpacked size

struct BzimageRecipe {
  Bytes payload = {};
  uint16_t version = 0x020f;
  uint16_t xloadflags = 1;
  std::string version_text = "6.1.0-test";
};
Bytes make_bzimage(const BzimageRecipe& recipe);

Bytes multiboot_header(uint32_t flags);

std::unique_ptr<GuestMemory> make_memory(uint64_t mib);

template <class T>
T peek(const GuestMemory& memory, uint64_t address) {
  T value{};
  const bool ok =
      memory.read(GuestPhys(address), std::span(reinterpret_cast<uint8_t*>(&value), sizeof value));
  US_CHECK(ok);
  return value;
}

std::string peek_string(const GuestMemory& memory, uint64_t address);

// The error's id, or "ok".
template <class T>
std::string outcome(const Result<T>& result) {
  return result.ok() ? "ok" : result.error().id;
}

}  // namespace us::hv::testing
