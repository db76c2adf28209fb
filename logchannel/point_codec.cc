#include "logchannel/point_codec.h"

namespace us::log {
namespace {

bool in_kernel_half(uint64_t rip) { return (rip >> 63) != 0; }

uint64_t& last_in_half(PointState& state, uint64_t rip) {
  return in_kernel_half(rip) ? state.last_kernel_rip : state.last_user_rip;
}

void remember_new_rip(PointState& state, uint64_t rip) {
  state.rips[state.next_slot] = rip;
  state.next_slot = static_cast<uint8_t>((state.next_slot + 1) % kRipSlots);
  if (state.used_slots < kRipSlots) ++state.used_slots;
}

uint8_t find_slot(const PointState& state, uint64_t rip) {
  for (uint8_t slot = 0; slot < state.used_slots; ++slot) {
    if (state.rips[slot] == rip) return slot;
  }
  return kRipRaw;
}

// The code for `rip`; kRipRaw where a difference would be no shorter than the eight bytes.
uint8_t rip_code(PointState& state, uint64_t rip) {
  const uint8_t slot = find_slot(state, rip);
  if (slot != kRipRaw) return slot;
  const uint64_t difference = zigzag(rip - last_in_half(state, rip));
  if ((difference >> 49) != 0) return kRipRaw;
  return in_kernel_half(rip) ? kRipNearKernel : kRipNearUser;
}

void put_rip(PointState& state, uint8_t code, uint64_t rip, SmallBuffer& out) {
  if (code == kRipRaw) out.put_fixed(rip, 8);
  if (code == kRipNearKernel || code == kRipNearUser) {
    out.put_varint(zigzag(rip - last_in_half(state, rip)));
  }
  if (code >= kRipSlots) remember_new_rip(state, rip);
  last_in_half(state, rip) = rip;
}

bool get_rip(PointState& state, uint8_t code, ByteReader& in, uint64_t& rip) {
  if (code < kRipSlots) {
    if (code >= state.used_slots) return false;
    rip = state.rips[code];
  } else {
    if (code == kRipRaw) rip = in.get<uint64_t>();
    if (code == kRipNearKernel) rip = state.last_kernel_rip + unzigzag(in.get_varint());
    if (code == kRipNearUser) rip = state.last_user_rip + unzigzag(in.get_varint());
    remember_new_rip(state, rip);
  }
  last_in_half(state, rip) = rip;
  return !in.failed();
}

}  // namespace

void encode_point(PointState& state, const Position& position, SmallBuffer& out) {
  if (position == state.last) {
    out.put_byte(kSamePoint << 2 | 3);
    return;
  }
  US_CHECK(position.branches >= state.last.branches, "position at {} branches after one at {}",
           position.branches, state.last.branches);
  const uint8_t extras =
      static_cast<uint8_t>((position.rcx ? kExtraRcx : 0) | (position.tie ? kExtraTie : 0));
  const uint8_t code = rip_code(state, position.rip);
  const bool counted = position.instructions != 0;
  out.put_byte(static_cast<uint8_t>(code << 2 | (counted ? 2 : 0) | (extras != 0 ? 1 : 0)));
  if (extras != 0) out.put_byte(extras);
  out.put_varint(position.branches - state.last.branches);
  put_rip(state, code, position.rip, out);
  if (counted) {
    US_CHECK(position.instructions >= state.last_instructions, "instruction {} after {}",
             position.instructions, state.last_instructions);
    out.put_varint(position.instructions - state.last_instructions);
    state.last_instructions = position.instructions;
  }
  if (position.rcx) out.put_varint(*position.rcx);
  if (position.tie) out.put_fixed(*position.tie, 4);
  state.last = position;
}

bool decode_point(PointState& state, ByteReader& in, Position& position) {
  const uint8_t first = in.get<uint8_t>();
  const uint8_t code = first >> 2;
  if (in.failed()) return false;
  if (code == kSamePoint) {
    position = state.last;
    return (first & 3) == 3;
  }
  const uint8_t extras = (first & 1) != 0 ? in.get<uint8_t>() : 0;
  if ((extras & ~(kExtraRcx | kExtraTie)) != 0) return false;
  const uint64_t branches_step = in.get_varint();
  position.branches = state.last.branches + branches_step;
  if (!get_rip(state, code, in, position.rip)) return false;
  position.instructions = 0;
  if ((first & 2) != 0) {
    position.instructions = state.last_instructions + in.get_varint();
    if (position.instructions < state.last_instructions || position.instructions == 0) return false;
    state.last_instructions = position.instructions;
  }
  position.rcx.reset();
  position.tie.reset();
  if ((extras & kExtraRcx) != 0) position.rcx = in.get_varint();
  if ((extras & kExtraTie) != 0) position.tie = in.get<uint32_t>();
  state.last = position;
  return !in.failed() && position.branches >= branches_step;
}

}  // namespace us::log
