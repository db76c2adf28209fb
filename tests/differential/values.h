// Random values that make processors work: boundaries, NaNs, denormals, and plain noise.
#pragma once

#include <cstdint>

#include "tests/differential/snapshot.h"

namespace us::differential {

// SplitMix64: small, and a test's numbers follow from (seed, index) alone.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e37'79b9'7f4a'7c15);
    z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
    z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
  bool percent(unsigned p) { return below(100) < p; }
  uint8_t byte() { return static_cast<uint8_t>(next() >> 56); }

 private:
  uint64_t state_;
};

uint64_t random_integer(Random& r);
uint32_t random_float(Random& r);
uint64_t random_double(Random& r);
void random_extended(Random& r, uint64_t& mantissa, uint16_t& exponent);

// The whole state, registers pointing at nothing in particular.
void fill_state(Random& r, Snapshot& s);

}  // namespace us::differential
