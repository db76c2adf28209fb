#include "base/crc32c.h"

#include <nmmintrin.h>

namespace us {

uint32_t crc32c(ByteSpan bytes, uint32_t crc) {
  uint64_t state = static_cast<uint32_t>(~crc);
  const uint8_t* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    state = _mm_crc32_u64(state, word);
  }
  for (; left > 0; ++at, --left) state = _mm_crc32_u8(static_cast<uint32_t>(state), *at);
  return ~static_cast<uint32_t>(state);
}

}  // namespace us
