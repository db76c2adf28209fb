// A digest of all guest memory that costs only what changed: one hash a page, combined by XOR, and
// only dirty pages are hashed again.
#pragma once

#include <cstdint>
#include <vector>

#include "base/digest.h"
#include "hv/core/memory.h"

namespace us::hv {

class MemoryDigest {
 public:
  explicit MemoryDigest(const GuestMemory& memory);

  // Rehashes the pages marked dirty, clears their marks, and returns the digest. The processor must
  // be made to mark pages again (Machine::memory_digest does both). Pages of zeros contribute
  // nothing, so a machine restored from a snapshot without them agrees.
  Digest update(GuestMemory& memory);

 private:
  std::vector<Digest> pages_;
  Digest combined_;
};

}  // namespace us::hv
