// A record's position, coded against the position before it on the same vCPU. Internal to the
// codec.
#pragma once

#include "base/bytes.h"
#include "logchannel/record_codec.h"
#include "logchannel/small_buffer.h"

namespace us::log {

// First byte: bit 0 an extras byte follows, bit 1 instructions follow, bits 7-2 how RIP is coded:
// a slot of the ring, or one of these.
enum RipCode : uint8_t {
  kRipNearKernel = 60,  // zigzag difference from the last address above the canonical hole
  kRipNearUser = 61,    // the same below it
  kRipRaw = 62,         // 8 bytes
  kSamePoint = 63,      // with bits 0 and 1 set: the last position, unchanged
};
enum PointExtras : uint8_t { kExtraRcx = 1, kExtraTie = 2 };

inline uint64_t zigzag(uint64_t difference) { return (difference << 1) ^ (0 - (difference >> 63)); }
inline uint64_t unzigzag(uint64_t coded) { return (coded >> 1) ^ (0 - (coded & 1)); }

void encode_point(PointState& state, const Position& position, SmallBuffer& out);
// False: malformed.
bool decode_point(PointState& state, ByteReader& in, Position& position);

}  // namespace us::log
