// The arbiter: one register on shared storage, sometimes slow, sometimes away, sometimes answering
// late that it could not be reached although the claim went through.
#pragma once

#include <map>
#include <string>

#include "replay-engine/arbiter/arbiter.h"
#include "tests/simulation/network.h"

namespace us::sim {

class Register {
 public:
  replay::Claim claim(uint64_t generation, const std::string& node) {
    const auto latest = holders_.empty() ? uint64_t{0} : holders_.rbegin()->first;
    if (generation > latest) {
      holders_[generation] = node;
      return {replay::ClaimVerdict::kWon, generation, node, ""};
    }
    const std::string& holder = holders_[latest];
    const bool mine = generation == latest && holder == node;
    return {mine ? replay::ClaimVerdict::kWon : replay::ClaimVerdict::kLost, latest, holder, ""};
  }
  std::pair<uint64_t, std::string> latest() const {
    if (holders_.empty()) return {0, ""};
    return {holders_.rbegin()->first, holders_.rbegin()->second};
  }
  bool away = false;
  bool slow = false;

 private:
  std::map<uint64_t, std::string> holders_;
};

// Answers by a callback, as the drivers' arbiter threads do.
void ask(Schedule& schedule, Random& random, Register& reg, uint64_t generation,
         const std::string& node, std::function<void(replay::Claim)> answer);

}  // namespace us::sim
