// A seeded generator: everything a simulation decides comes from here.
#pragma once

#include <chrono>
#include <cstdint>

namespace us::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 0x1234567) {}
  uint64_t next() {  // splitmix64
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return next() % n; }
  bool chance(double p) { return static_cast<double>(next() >> 11) * 0x1p-53 < p; }
  std::chrono::nanoseconds between(std::chrono::nanoseconds low, std::chrono::nanoseconds high) {
    return low + std::chrono::nanoseconds(
                     static_cast<int64_t>(below(static_cast<uint64_t>((high - low).count()) + 1)));
  }

 private:
  uint64_t state_;
};

}  // namespace us::sim
