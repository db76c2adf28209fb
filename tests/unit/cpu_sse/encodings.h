// Every encoding of an MMX or SSE instruction, found by decoding the whole opcode space rather than
// by a list somebody could leave something out of.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/unit/cpu_sse/guest.h"

namespace us::test {

struct Encoding {
  uint8_t prefix = 0;  // 0, 66, F3 or F2
  uint8_t map = 0;     // 0: 0F, else 0F 38 or 0F 3A
  uint8_t opcode = 0;
  bool rex_w = false;
  bool memory = false;    // [rbx]
  int8_t extension = -1;  // ModRM.reg when it belongs to the opcode
  ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
};

// Bytes of it with registers (none reserved) and immediate at random.
std::vector<uint8_t> encode(const Encoding& e, Random& random, const Guest& guest);

std::vector<Encoding> all_encodings(const Guest& guest);

}  // namespace us::test
