// Guest physical memory: RAM below the PCI hole and RAM above 4 GiB, host-backed by one mapping.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"

namespace us::hv {

// Told when RAM that holds decoded code changes by other means than the vCPU's own stores.
class CodeWatcher {
 public:
  virtual ~CodeWatcher() = default;
  // Bytes [address, address + size) inside one page are about to change.
  virtual void code_written(GuestPhys address, size_t size) = 0;
};

// Whether all of a page is zero. The first word decides for nearly every page in use.
bool page_is_zero(const uint8_t* page);

// RAM only; device ranges are the bus's business. Not thread-safe: owned by the vCPU thread.
class GuestMemory {
 public:
  static constexpr uint64_t kLowLimit = 0xc000'0000;    // RAM below the hole ends here at most
  static constexpr uint64_t kHighBase = 0x1'0000'0000;  // the rest starts here

  // Flags kept per 4 KiB page. A write sets one dirty mark for each who clears them.
  static constexpr uint8_t kDirtyForDigest = 1;    // written since hv/memory_digest.h looked
  static constexpr uint8_t kPageHasCode = 2;       // the processor holds decoded code of this page
  static constexpr uint8_t kDirtyForTransfer = 4;  // written since hv/state_transfer.h took it
  static constexpr uint8_t kPageDirty = kDirtyForDigest | kDirtyForTransfer;

  // `size_bytes`: a multiple of 4 KiB, at least 1 MiB. Errors: MEM-001 bad size, MEM-002 host
  // refused.
  static Result<std::unique_ptr<GuestMemory>> create(uint64_t size_bytes);
  // The same memory once more, with page flags and a code watcher of its own: for a model that
  // stands where the kernel does. `base` is what another one's host(GuestPhys(0)) is.
  static std::unique_ptr<GuestMemory> view_of(uint8_t* base, uint64_t size_bytes);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  uint64_t size() const { return size_; }
  uint64_t low_size() const { return low_size_; }
  uint64_t high_size() const { return size_ - low_size_; }
  uint64_t page_count() const { return size_ / kPageSize; }

  // Whether all of [address, address + size) is RAM.
  bool contains(GuestPhys address, uint64_t size) const {
    return size != 0 && page_index(address) != kNoPage &&
           page_index(address + (size - 1)) != kNoPage && address.value + size >= address.value &&
           (address.value < low_size_) == (address.value + size - 1 < low_size_);
  }

  // Host pointer to the RAM page holding `address` (which must be RAM), at that address.
  // Writing through it needs mark_dirty() and, where code may lie, notify_code().
  uint8_t* host(GuestPhys address) { return base_ + offset(address); }
  const uint8_t* host(GuestPhys address) const { return base_ + offset(address); }

  // Copies; false (and nothing done) when any byte lies outside RAM. Writes mark pages dirty and
  // tell the code watcher: this is the way in for DMA and loaders.
  bool read(GuestPhys address, std::span<uint8_t> out) const;
  bool write(GuestPhys address, ByteSpan bytes);

  // Dense index of the RAM page holding `address`, or kNoPage.
  static constexpr uint64_t kNoPage = ~0ull;
  uint64_t page_index(GuestPhys address) const {
    if (address.value < low_size_) return address.value / kPageSize;
    const uint64_t above = address.value - kHighBase;
    if (address.value >= kHighBase && above < size_ - low_size_)
      return (low_size_ + above) / kPageSize;
    return kNoPage;
  }
  GuestPhys page_address(uint64_t index) const {
    const uint64_t at = index * kPageSize;
    return GuestPhys(at < low_size_ ? at : kHighBase + (at - low_size_));
  }
  uint8_t* page_host(uint64_t index) { return base_ + index * kPageSize; }
  const uint8_t* page_host(uint64_t index) const { return base_ + index * kPageSize; }

  // One byte of flags per page, indexed by page_index(). The processor sets kPageDirty and
  // kPageHasCode directly.
  uint8_t* page_flags() { return page_flags_.data(); }
  const uint8_t* page_flags() const { return page_flags_.data(); }
  void mark_dirty(GuestPhys address) { page_flags_[page_index(address)] |= kPageDirty; }

  void set_code_watcher(CodeWatcher* watcher) { watcher_ = watcher; }

 private:
  GuestMemory() = default;
  uint64_t offset(GuestPhys address) const {
    return address.value < low_size_ ? address.value : address.value - kHighBase + low_size_;
  }

  uint8_t* base_ = nullptr;
  uint64_t size_ = 0;
  uint64_t low_size_ = 0;
  std::vector<uint8_t> page_flags_;
  CodeWatcher* watcher_ = nullptr;
  bool owns_ = true;
};

}  // namespace us::hv
