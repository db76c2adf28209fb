// Random guest programs for the lockstep test: loops, calls and jumps over several pages, faults
// that resume, code that changes itself, flags that somebody looks at much later.
#pragma once

#include <cstdint>
#include <vector>

namespace us::lockstep {

constexpr uint64_t kProgramAt = 0x10'0000, kDataAt = 0x30'0000, kNowhere = 0x9000'0000,
                   kTicksAt = 0x2f'0000;
constexpr uint64_t kDataBytes = 0x4000;
constexpr unsigned kTickVector = 0x40;

// To be put at kProgramAt and entered there with RBX = kDataAt. Where it faults, R14 is the address
// to go on at. It ends with HLT.
std::vector<uint8_t> random_program(uint64_t seed);

}  // namespace us::lockstep
