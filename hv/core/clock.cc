#include "hv/core/clock.h"

#include <algorithm>

#include "base/check.h"

namespace us::hv {

GuestTsc GuestClock::at(Branches position) const {
  US_CHECK(position >= anchor_.branches, "clock read at {} before its anchor at {}", position.value,
           anchor_.branches.value);
  const unsigned __int128 advance =
      static_cast<unsigned __int128>((position - anchor_.branches).value) *
      anchor_.ticks_per_branch_q32;
  const uint64_t room = anchor_.tsc_ceiling.value - anchor_.tsc.value;
  const unsigned __int128 ticks = advance >> 32;
  return anchor_.tsc + (ticks > room ? room : static_cast<uint64_t>(ticks));
}

void GuestClock::set_anchor(ClockAnchor anchor) {
  const GuestTsc reading = at(anchor.branches);
  anchor.tsc = std::max(anchor.tsc, reading);
  anchor.tsc_ceiling = std::max(anchor.tsc_ceiling, anchor.tsc);
  anchor_ = anchor;
}

void GuestClock::save(ByteWriter& out) const {
  out.put(anchor_.branches.value);
  out.put(anchor_.tsc.value);
  out.put(anchor_.ticks_per_branch_q32);
  out.put(anchor_.tsc_ceiling.value);
  out.put(guest_offset_);
}

void GuestClock::load(ByteReader& in) {
  anchor_.branches = Branches(in.get<uint64_t>());
  anchor_.tsc = GuestTsc(in.get<uint64_t>());
  anchor_.ticks_per_branch_q32 = in.get<uint64_t>();
  anchor_.tsc_ceiling = GuestTsc(in.get<uint64_t>());
  guest_offset_ = in.get<uint64_t>();
  if (anchor_.tsc_ceiling < anchor_.tsc) in.fail();
}

}  // namespace us::hv
