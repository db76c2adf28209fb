// The smallest machine that has what the protocol is about: a state that is a function of its
// inputs and where they landed, and outputs at points that follow from the state alone.
#pragma once

#include <cstdint>
#include <functional>
#include <unordered_set>

namespace us::sim {

inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9e3779b97f4a7c15 ^ (b + 0x7f4a7c15);
  z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9;
  return z ^ (z >> 32);
}

struct Guest {
  uint64_t state = 1;
  uint64_t branches = 0;
  std::unordered_set<uint64_t> outputs;  // all it ever produced, by content

  // Runs on; `output` is told each output's content, at its point.
  void run_to(uint64_t target, const std::function<void(uint64_t)>& output) {
    while (branches < target) {
      ++branches;
      const uint64_t roll = mix(state, branches);
      if (roll % 7 != 0) continue;
      outputs.insert(roll);
      output(roll);
    }
  }
  void apply(uint64_t input) { state = mix(state, input); }
};

}  // namespace us::sim
