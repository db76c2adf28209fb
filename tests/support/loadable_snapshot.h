// For fuzz targets: any bytes made into something that a reader of snapshots does not refuse at
// once. Lengths and checksums are made right (a fuzzer does not find them), and memory small.
#pragma once

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace us::test {

// `at`: where the snapshot begins in `bytes`.
inline void make_loadable(Bytes& bytes, size_t at = 0) {
  constexpr size_t kHead = 12;        // magic and version
  constexpr size_t kPartHeader = 16;  // part, checksum, size
  constexpr uint64_t kMemoryMost = 1 << 20;
  for (at += kHead; at + kPartHeader <= bytes.size();) {
    uint8_t* const header = bytes.data() + at;
    uint8_t* const body = header + kPartHeader;
    uint64_t stored;
    std::memcpy(&stored, header + 8, 8);
    const uint64_t size = std::min<uint64_t>(stored, bytes.size() - at - kPartHeader);
    if (stored > size) std::memcpy(header + 8, &size, 8);
    uint64_t memory = 0;
    if (header[0] == 1 && size >= 10) {
      std::memcpy(&memory, body + 2, 8);
      if (memory > kMemoryMost) std::memcpy(body + 2, &kMemoryMost, 8);
    }
    const uint32_t crc = crc32c({body, size});
    std::memcpy(header + 4, &crc, 4);
    at += kPartHeader + size;
  }
}

}  // namespace us::test
