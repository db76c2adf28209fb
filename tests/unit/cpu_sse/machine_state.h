// Registers as both the host's processor and the software processor can be loaded with, and
// arbitrary ones that make floating-point units work for their living.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <string>

#include "hv/cpu/state.h"

namespace us::test {

using Random = std::mt19937_64;

// The bytes instructions read and write: straddles a page boundary at kWindowSize / 2.
constexpr unsigned kWindowSize = 128;

struct MachineState {
  std::array<hv::Xmm, 16> xmm{};
  std::array<uint64_t, 8> mm{};       // by physical number
  std::array<uint16_t, 8> mm_high{};  // the sixteen bits above
  uint8_t valid = 0;                  // x87 tags, abridged
  uint8_t top = 0;
  std::array<uint64_t, 16> gpr{};
  uint64_t flags = 2;  // arithmetic flags of RFLAGS
  uint32_t mxcsr = 0x1f80;
  std::array<uint8_t, kWindowSize> window{};
};

// RBX and RDI point into the window, RSP and R15 serve the harness: tests name none of them.
constexpr bool reserved_gpr(unsigned n) { return n == 3 || n == 4 || n == 7 || n == 15; }

hv::Xmm random_xmm(Random& random);
MachineState random_state(Random& random);

// What differs, in words; empty: nothing.
std::string difference(const MachineState& expected, const MachineState& seen);

}  // namespace us::test
