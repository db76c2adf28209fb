// What is different between two machines that should be the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/digest.h"
#include "hv/machine.h"

namespace us::replay {

struct RegisterDifference {
  std::string name;
  uint64_t a = 0, b = 0;
  std::string detail{};  // flags by name
};

struct PageDifference {
  uint64_t address = 0;  // guest physical, of the page
  uint32_t first = 0;    // offsets of the first and last byte that differ
  uint32_t last = 0;
  uint32_t bytes = 0;    // how many differ
  std::string a{}, b{};  // hexadecimal, from the first on
};

struct StateDifference {
  std::vector<RegisterDifference> registers{};
  // Processor state that is no plain register, and devices: lines of the dumps that differ, a then
  // b.
  std::vector<std::string> processor{}, devices{};
  std::vector<PageDifference> pages{};
  uint64_t pages_in_all = 0;
};

// What a comparison at one place found. Cheap enough for every few thousand branches.
struct StateDigests {
  Digest registers, devices, memory;
  bool operator==(const StateDigests&) const = default;
};
StateDigests digests_of(hv::Machine& machine);
// "registers, memory": what differs; empty: nothing.
std::string differing(const StateDigests& a, const StateDigests& b);

// Lists of pages and lines are cut at these lengths.
constexpr size_t kPagesListed = 64;
constexpr size_t kLinesListed = 40;

std::vector<RegisterDifference> register_differences(const hv::Registers& a,
                                                     const hv::Registers& b);
StateDifference state_difference(hv::Machine& a, hv::Machine& b);

}  // namespace us::replay
