// Clock anchors, coded as how far they miss what the anchors before them predict. Internal to the
// codec.
#pragma once

#include "base/bytes.h"
#include "logchannel/record_codec.h"
#include "logchannel/small_buffer.h"

namespace us::log {

// Control byte: bit 0 `branches` differs from the position's, bits 2-1 TSC prediction, bits 4-3
// rate, bits 6-5 ceiling, bit 7 zero.
enum TscPrediction : uint8_t {
  kTscFromClock = 0,    // what the last anchor's clock reads at this anchor's branches
  kTscPeriodic = 1,     // the step between the last two anchors again
  kTscLastCeiling = 2,  // the last anchor's ceiling
  kTscLast = 3,         // the last anchor's TSC
};
enum RateCode : uint8_t {
  kRateSame = 0,
  kRateObserved = 1,  // TSC step over branches step since the last anchor
  kRateShifted = 2,   // one byte n, then a zigzag difference from the last rate, to be shifted by n
};
enum CeilingCode : uint8_t {
  kCeilingSameSlack = 0,  // as far above the TSC as last time
  kCeilingSame = 1,       // where it was
  kCeilingSlack = 2,      // zigzag difference from last time's distance above the TSC
  kCeilingIsTsc = 3,
};

void encode_anchor(CodecState& state, uint64_t position_branches, const Anchor& anchor,
                   SmallBuffer& out);
// False: malformed.
bool decode_anchor(CodecState& state, uint64_t position_branches, ByteReader& in, Anchor& anchor);

}  // namespace us::log
