#include "hv/memory_digest.h"

#include <cstring>
#include <xxhash.h>

namespace us::hv {
namespace {

Digest page_digest(uint64_t index, const uint8_t* page) {
  if (page_is_zero(page)) return {};
  const XXH128_hash_t hash = XXH3_128bits_withSeed(page, kPageSize, index);
  return {hash.low64, hash.high64};
}

}  // namespace

MemoryDigest::MemoryDigest(const GuestMemory& memory) : pages_(memory.page_count()) {}

Digest MemoryDigest::update(GuestMemory& memory) {
  uint8_t* flags = memory.page_flags();
  for (uint64_t i = 0; i < pages_.size(); ++i) {
    if ((flags[i] & GuestMemory::kDirtyForDigest) == 0) continue;
    flags[i] &= static_cast<uint8_t>(~GuestMemory::kDirtyForDigest);
    const Digest fresh = page_digest(i, memory.page_host(i));
    combined_.low ^= pages_[i].low ^ fresh.low;
    combined_.high ^= pages_[i].high ^ fresh.high;
    pages_[i] = fresh;
  }
  return combined_;
}

}  // namespace us::hv
