#include "hv/core/memory.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

namespace us::hv {

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(uint64_t size_bytes) {
  if (size_bytes < (1u << 20) || size_bytes % kPageSize != 0) {
    return UserError{.id = "MEM-001",
                     .what = "guest memory size is not usable",
                     .seen = fmt::format("{} bytes", size_bytes),
                     .needed = "at least 1 MiB, in whole 4 KiB pages",
                     .mend = "set `memory` (or --memory) to a size such as 256M"};
  }
  void* base = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return UserError{.id = "MEM-002",
                     .exit_code = ExitCode::kHostCannot,
                     .what = fmt::format("cannot reserve {} MiB of guest memory", size_bytes >> 20),
                     .seen = std::strerror(errno),
                     .needed = "enough free memory and address space on this host",
                     .mend = "lower `memory`, or raise the limit (`ulimit -v`)"};
  }
  // One host fault for 2 MiB that the guest touches instead of 512; a host without huge pages does
  // as before.
  madvise(base, size_bytes, MADV_HUGEPAGE);
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  memory->base_ = static_cast<uint8_t*>(base);
  memory->size_ = size_bytes;
  memory->low_size_ = std::min(size_bytes, kLowLimit);
  memory->page_flags_.assign(size_bytes / kPageSize, 0);
  return memory;
}

std::unique_ptr<GuestMemory> GuestMemory::view_of(uint8_t* base, uint64_t size_bytes) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  memory->base_ = base;
  memory->owns_ = false;
  memory->size_ = size_bytes;
  memory->low_size_ = std::min(size_bytes, kLowLimit);
  memory->page_flags_.assign(size_bytes / kPageSize, 0);
  return memory;
}

GuestMemory::~GuestMemory() {
  if (owns_ && base_ != nullptr) munmap(base_, size_);
}

bool page_is_zero(const uint8_t* page) {
  uint64_t first;
  std::memcpy(&first, page, sizeof first);
  return first == 0 && std::memcmp(page, page + sizeof first, kPageSize - sizeof first) == 0;
}

bool GuestMemory::read(GuestPhys address, std::span<uint8_t> out) const {
  if (out.empty()) return true;
  if (!contains(address, out.size())) return false;
  std::memcpy(out.data(), host(address), out.size());
  return true;
}

bool GuestMemory::write(GuestPhys address, ByteSpan bytes) {
  if (bytes.empty()) return true;
  if (!contains(address, bytes.size())) return false;
  for (size_t done = 0; done < bytes.size();) {
    const GuestPhys at = address + done;
    const size_t chunk = std::min<size_t>(bytes.size() - done, kPageSize - (at.value & kPageMask));
    uint8_t& flags = page_flags_[page_index(at)];
    flags |= kPageDirty;
    if ((flags & kPageHasCode) != 0 && watcher_ != nullptr) watcher_->code_written(at, chunk);
    done += chunk;
  }
  std::memcpy(host(address), bytes.data(), bytes.size());
  return true;
}

}  // namespace us::hv
