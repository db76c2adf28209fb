// The long forms of what tests/unit/cpu_trace checks.
#pragma once

#include <cstdint>
#include <string>

namespace us::test {

// Replays the recording an instruction at a time; libipt must reconstruct each from the trace that
// was written while the guest was recorded. Stops after so many branches. 0: all held.
int soak_flow(const std::string& recording, const std::string& trace, uint64_t branches_max);

// Writes the run in `bytes_max` bytes of the trace anew as `seeds` processors might, and with as
// many single changes: one digest of the first, another of each of the second. 0: all held.
int soak_variation(const std::string& trace, uint64_t bytes_max, uint64_t seeds);

}  // namespace us::test
