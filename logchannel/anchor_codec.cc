#include "logchannel/anchor_codec.h"

#include <algorithm>
#include <bit>

#include "logchannel/point_codec.h"

namespace us::log {
namespace {

// Both sides do this arithmetic modulo 2^64 on whatever they are given: a hostile log may predict
// nonsense, but the same nonsense.
uint64_t predict_tsc(const CodecState& state, uint8_t prediction, uint64_t branches) {
  const Anchor& last = state.anchor;
  switch (prediction) {
    case kTscPeriodic: return last.tsc + state.tsc_step;
    case kTscLastCeiling: return last.tsc_ceiling;
    case kTscLast: return last.tsc;
    default: break;
  }
  const unsigned __int128 advance =
      static_cast<unsigned __int128>(branches - last.branches) * last.ticks_per_branch_q32;
  const unsigned __int128 ticks = advance >> 32;
  const uint64_t room = last.tsc_ceiling - last.tsc;
  return last.tsc + (ticks > room ? room : static_cast<uint64_t>(ticks));
}

uint64_t observed_rate(const Anchor& last, uint64_t tsc, uint64_t branches) {
  const uint64_t step = branches - last.branches;
  if (step == 0) return last.ticks_per_branch_q32;
  return static_cast<uint64_t>((static_cast<unsigned __int128>(tsc - last.tsc) << 32) / step);
}

struct Choice {
  uint8_t prediction;
  uint64_t miss;  // zigzag
};

Choice best_tsc_prediction(const CodecState& state, const Anchor& anchor) {
  Choice best{kTscFromClock, ~0ull};
  for (uint8_t prediction = kTscFromClock; prediction <= kTscLast; ++prediction) {
    const uint64_t miss = zigzag(anchor.tsc - predict_tsc(state, prediction, anchor.branches));
    if (miss < best.miss || prediction == 0) best = {prediction, miss};
  }
  return best;
}

uint8_t rate_code(const CodecState& state, const Anchor& anchor) {
  if (anchor.ticks_per_branch_q32 == state.anchor.ticks_per_branch_q32) return kRateSame;
  const uint64_t observed = observed_rate(state.anchor, anchor.tsc, anchor.branches);
  return anchor.ticks_per_branch_q32 == observed ? kRateObserved : kRateShifted;
}

uint8_t ceiling_code(const CodecState& state, const Anchor& anchor) {
  const uint64_t last_slack = state.anchor.tsc_ceiling - state.anchor.tsc;
  if (anchor.tsc_ceiling - anchor.tsc == last_slack) return kCeilingSameSlack;
  if (anchor.tsc_ceiling == state.anchor.tsc_ceiling) return kCeilingSame;
  return anchor.tsc_ceiling == anchor.tsc ? kCeilingIsTsc : kCeilingSlack;
}

void remember(CodecState& state, const Anchor& anchor) {
  state.tsc_step = anchor.tsc - state.anchor.tsc;
  state.anchor = anchor;
}

}  // namespace

void encode_anchor(CodecState& state, uint64_t position_branches, const Anchor& anchor,
                   SmallBuffer& out) {
  const bool own_branches = anchor.branches != position_branches;
  const Choice tsc = best_tsc_prediction(state, anchor);
  const uint8_t rate = rate_code(state, anchor);
  const uint8_t ceiling = ceiling_code(state, anchor);
  out.put_byte(static_cast<uint8_t>((own_branches ? 1 : 0) | tsc.prediction << 1 | rate << 3 |
                                    ceiling << 5));
  if (own_branches) out.put_varint(zigzag(anchor.branches - position_branches));
  out.put_varint(tsc.miss);
  if (rate == kRateShifted) {
    const uint64_t difference = anchor.ticks_per_branch_q32 - state.anchor.ticks_per_branch_q32;
    const int shift = std::countr_zero(difference);
    out.put_byte(static_cast<uint8_t>(shift));
    // An arithmetic shift keeps the sign; the bits shifted out are zeros.
    out.put_varint(zigzag(static_cast<uint64_t>(static_cast<int64_t>(difference) >> shift)));
  }
  if (ceiling == kCeilingSlack) {
    const uint64_t last_slack = state.anchor.tsc_ceiling - state.anchor.tsc;
    out.put_varint(zigzag(anchor.tsc_ceiling - anchor.tsc - last_slack));
  }
  remember(state, anchor);
}

bool decode_anchor(CodecState& state, uint64_t position_branches, ByteReader& in, Anchor& anchor) {
  const uint8_t control = in.get<uint8_t>();
  const uint8_t rate = control >> 3 & 3;
  if (in.failed() || (control & 0x80) != 0 || rate > kRateShifted) return false;
  const Anchor& last = state.anchor;
  anchor.branches = position_branches;
  if ((control & 1) != 0) anchor.branches += unzigzag(in.get_varint());
  anchor.tsc = predict_tsc(state, control >> 1 & 3, anchor.branches) + unzigzag(in.get_varint());
  anchor.ticks_per_branch_q32 = last.ticks_per_branch_q32;
  if (rate == kRateObserved) {
    anchor.ticks_per_branch_q32 = observed_rate(last, anchor.tsc, anchor.branches);
  } else if (rate == kRateShifted) {
    const uint8_t shift = in.get<uint8_t>();
    if (shift > 63) return false;
    anchor.ticks_per_branch_q32 += unzigzag(in.get_varint()) << shift;
  }
  const uint64_t last_slack = last.tsc_ceiling - last.tsc;
  switch (control >> 5) {
    case kCeilingSameSlack: anchor.tsc_ceiling = anchor.tsc + last_slack; break;
    case kCeilingSame: anchor.tsc_ceiling = last.tsc_ceiling; break;
    case kCeilingSlack:
      anchor.tsc_ceiling = anchor.tsc + last_slack + unzigzag(in.get_varint());
      break;
    default: anchor.tsc_ceiling = anchor.tsc; break;
  }
  if (in.failed()) return false;
  remember(state, anchor);
  return true;
}

}  // namespace us::log
