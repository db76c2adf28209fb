// Two claimants at once, generation after generation: with threads, and with processes.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "replay-engine/arbiter/arbiter.h"

namespace us::replay::testing {

// Makes the arbiter of the node of that name. In a process it must not need a thread.
using MakeArbiter = std::function<std::unique_ptr<Arbiter>(const std::string& node)>;

struct RaceResult {
  struct Round {
    unsigned won = 0, lost = 0;
  };
  std::vector<Round> rounds;
  unsigned wins[2] = {};  // of each claimant
};
// Nodes "a" and "b" claim generations 1 to `rounds`, both let go at the same moment in each.
RaceResult race_threads(unsigned rounds, const MakeArbiter& make);
RaceResult race_processes(unsigned rounds, const MakeArbiter& make);

}  // namespace us::replay::testing
