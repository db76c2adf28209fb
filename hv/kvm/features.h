// What a kernel's KVM offers beyond what every supported one has: the tiers of the backend.
#pragma once

#include <cstdint>

namespace us::hv::kvm {

struct Features {
  // Of modules built with our patch (hv/kvm/patches/), each on its own.
  bool time_exits = false;             // RDTSC and RDTSCP exit to us
  bool monitor_steps = false;          // single steps by the monitor trap flag
  bool hides_spurious_faults = false;  // page faults the guest's tables do not justify
  bool guest_only_trace = false;       // Intel PT runs in the guest alone

  // Everything a guest that knows nothing of us needs.
  bool protects_any_guest() const { return time_exits; }
};

}  // namespace us::hv::kvm
