// The guest's one clock: its time stamp counter as a function of position. Every clock a guest can
// read (TSC, APIC timers, PIT, RTC, ACPI PM timer) is derived from it, so both sides of a replay
// agree on every reading without a log entry for it.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/types.h"

namespace us::hv {

constexpr uint64_t kTscHz = 1'000'000'000;  // one tick a nanosecond, told to the guest by CPUID
// The crystal that the time stamp counter multiplies and the local APIC timer counts, by CPUID too.
constexpr uint32_t kCrystalHz = 25'000'000;
static_assert(kTscHz % kCrystalHz == 0);

// What the live side observed: at `branches` the guest's clock read `tsc`, and until the next
// anchor it advances `ticks_per_branch` (32.32 fixed point) per retired conditional branch, but
// never beyond `tsc_ceiling`.
struct ClockAnchor {
  Branches branches;
  GuestTsc tsc;
  uint64_t ticks_per_branch_q32 = 0;
  GuestTsc tsc_ceiling;

  bool operator==(const ClockAnchor&) const = default;
};

class GuestClock {
 public:
  // The clock's reading at `position` (not before the current anchor). Never decreases: an anchor
  // whose tsc lies below the reading already given is raised to it.
  GuestTsc at(Branches position) const;

  // Takes effect at anchor.branches. Precondition: anchor.branches >= the current anchor's.
  void set_anchor(ClockAnchor anchor);
  const ClockAnchor& anchor() const { return anchor_; }

  // The guest writes its TSC (MSR 0x10): readings by RDTSC get this offset added, devices do not.
  // SDM 3B 18.17.
  void set_guest_offset(uint64_t offset) { guest_offset_ = offset; }
  uint64_t guest_offset() const { return guest_offset_; }

  void save(ByteWriter& out) const;
  void load(ByteReader& in);

 private:
  ClockAnchor anchor_;
  uint64_t guest_offset_ = 0;
};

}  // namespace us::hv
