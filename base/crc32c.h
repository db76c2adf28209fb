// CRC-32C (Castagnoli), as in iSCSI (RFC 3720 B.4): the checksum of every format that leaves us.
#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace us {

// Continues `crc` (0 to start) over `bytes`.
uint32_t crc32c(ByteSpan bytes, uint32_t crc = 0);

}  // namespace us
