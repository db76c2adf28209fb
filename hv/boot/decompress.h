// Unpacks a bzImage's payload: xz, zstd, gzip, or LZ4's legacy frame.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace us::hv {

// The format's name by its first bytes, or nullptr when none is known.
const char* payload_format(ByteSpan payload);

// The unpacked payload. `limit` bounds the output in bytes; memory use follows the output that
// really comes, so a lying size field costs nothing. What follows the compressed stream is ignored
// (the kernel's build appends the unpacked size). Errors: BOOT-006, BOOT-007.
Result<Bytes> decompress_payload(ByteSpan payload, uint64_t limit, const std::string& name);

}  // namespace us::hv
