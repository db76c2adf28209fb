// What an integer instruction can see and change: general registers, flags, and a window of memory
// that host and guest have at the same address, across a page boundary.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace us::test {

constexpr uint64_t kData = 0x0800'0000;       // four pages of data
constexpr uint64_t kCentre = kData + 0x2000;  // the window's middle, a page boundary
constexpr unsigned kWindowSize = 1024;
constexpr uint64_t kWindow = kCentre - kWindowSize / 2;

constexpr uint64_t kArithmeticFlags = 0x8d5;
constexpr uint64_t kDirection = 0x400;

struct Machine {
  std::array<uint64_t, 16> regs{};
  uint64_t flags = 2;  // the arithmetic flags and DF count
  std::array<uint8_t, kWindowSize> window{};
  bool operator==(const Machine&) const = default;
};

// Where two machines differ; empty if nowhere.
std::string difference(const Machine& host, const Machine& guest);

}  // namespace us::test
