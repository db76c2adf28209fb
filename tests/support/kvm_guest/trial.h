// The guest of guest.h tried on a host's KVM: recorded there, replayed there and on the software
// processor.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/support/kvm_guest/guest.h"

namespace us::hv::kvm::test {

struct TrialHost {
  VcpuFactory stepped;       // KVM, every instruction stepped
  VcpuFactory counted = {};  // KVM with a branch counter; empty: there is none
  uint64_t margin = 0;       // of that counter, in branches
  uint64_t rounds = 0;       // of the guest
  Pace pace;
};

struct Trial {
  std::string name;
  std::string failure;  // empty: it passed
  std::string figures;
};

// `done` hears of each trial as it ends. Returns whether all passed.
bool try_guest(const TrialHost& host, const std::function<void(const Trial&)>& done);

}  // namespace us::hv::kvm::test
