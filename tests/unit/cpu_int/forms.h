// Random integer instructions: every opcode of the family, every operand size, registers and
// memory.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "tests/unit/cpu_int/machine.h"

namespace us::test {

using Random = std::mt19937_64;

enum class Map : uint8_t { kOne, kTwo, kThree38 };
enum class Immediate : uint8_t { kNone, kByte, kFull, kEnter, kMov };
enum class Operands : uint8_t { kNone, kModrm, kRegOnly, kMemOnly, kOpcodeReg };

// An opcode with what may surround it. `digit` fixes the modrm's reg field (255: random).
struct Form {
  Map map = Map::kOne;
  uint8_t opcode = 0;
  Operands operands = Operands::kNone;
  uint8_t digit = 255;
  Immediate immediate = Immediate::kNone;
  uint8_t prefix = 0;  // F2 or F3; 1: none, F2 or F3 at random
  bool string = false;
  bool stack = false;
};

std::span<const Form> integer_forms();

struct Sample {
  std::vector<uint8_t> code;
  Machine machine;
};
// Bytes of one instruction of `form` and a state it can run from: operands in memory lie in the
// window.
Sample make_sample(const Form& form, Random& random);

}  // namespace us::test
