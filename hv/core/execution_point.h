// Where in the guest's instruction stream something happened.
#pragma once

#include <compare>
#include <cstdint>

#include "base/types.h"

namespace us::hv {

// A place between two instructions. `branches` and `rip` are what every backend knows; they are not
// unique by themselves (straight jumps, call/ret chains repeat both), so landing compares guest
// state where they tie. `instructions` is exact on the software processor and zero where the
// backend cannot count them (see VcpuCaps::counts_instructions).
struct ExecutionPoint {
  Branches branches;
  uint64_t rip = 0;
  uint64_t rcx = 0;
  Instructions instructions;

  bool operator==(const ExecutionPoint&) const = default;
};

}  // namespace us::hv
