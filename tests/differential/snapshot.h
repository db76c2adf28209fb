// What both processors are loaded with and asked for afterwards, and the address space they share.
#pragma once

#include <cstdint>

#include "hv/cpu/state.h"

namespace us::differential {

// The same virtual addresses on the host and in the guest, below 2 GiB so that every addressing
// form reaches them; around each region nothing is mapped.
constexpr uint64_t kPage = 4096;
constexpr uint64_t kCodeBase = 0x2000'0000, kDataBase = 0x2100'0000, kStackBase = 0x2200'0000;
constexpr unsigned kDataPages = 4, kStackPages = 4;  // writable
constexpr uint64_t kReadOnlyPage = kDataBase + kDataPages * kPage;
constexpr uint64_t kGuardPage = kReadOnlyPage + kPage;  // the first unmapped address after the data
constexpr uint64_t kGsBase = 0x1000;
constexpr uint64_t kNonCanonical = 0x8000'1234'5678'0000;

// Set anew before every test and compared after it; each straddles a page boundary. Stray stores
// elsewhere in the regions are compared at the end of a batch.
constexpr unsigned kDataWindow = 1024, kStackWindow = 256;
constexpr uint64_t kDataWindowAt = kDataBase + 2 * kPage - kDataWindow / 2;
constexpr uint64_t kStackWindowAt = kStackBase + 2 * kPage - kStackWindow / 2;

// A batch's tests lie in slots of code, filled up with INT3: every test ends by an exception.
constexpr unsigned kBatch = 1024, kBanks = 2,
                   kSlotSize = 96;  // not a divisor of a page: some cross pages
constexpr uint64_t kCodeSize = uint64_t{kBatch} * kBanks * kSlotSize;
constexpr uint64_t slot_address(unsigned bank, unsigned slot) {
  return kCodeBase + (uint64_t{bank} * kBatch + slot) * kSlotSize;
}

constexpr uint8_t kHung = 255;  // Snapshot::vector of a test that did not come back

struct alignas(16) Snapshot {
  uint64_t gpr[16];
  uint64_t rip, rflags;
  uint64_t vector, error, cr2;  // how it ended
  uint16_t fcw, fsw;
  uint16_t ftw;  // abridged, by physical register
  uint16_t reserved;
  uint32_t mxcsr;
  uint32_t reserved2;
  struct {
    uint64_t mantissa;
    uint16_t exponent;
    uint16_t pad[3];
  } st[8];  // by position in the stack
  hv::Xmm xmm[16];
  uint8_t data[kDataWindow];
  uint8_t stack[kStackWindow];
};

}  // namespace us::differential
