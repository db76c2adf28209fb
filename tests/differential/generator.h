// Makes tests: one instruction, or a short stream of them, with the state before. Everything about
// a test follows from the seed and its number.
#pragma once

#include "tests/differential/forms.h"
#include "tests/differential/values.h"

namespace us::differential {

struct Step {
  Decoded in;
  int form = -1;
  uint8_t offset = 0;            // in the slot
  uint64_t undefined_flags = 0;  // RFLAGS bits nobody defines after this step
};

constexpr unsigned kMaxSteps = 6;

struct Test {
  uint64_t number = 0;
  uint64_t slot = 0;  // address of its slot of code
  uint8_t code[kSlotSize] = {};
  Step steps[kMaxSteps];
  unsigned count = 0;
  bool by_steps = false;         // the software processor steps instead of running blocks
  uint64_t undefined_flags = 0;  // ... at the end
  uint64_t memory_at = 0;        // linear address of the first step's memory operand, 0: none
};

class Generator {
 public:
  Generator(const Forms& forms, uint64_t seed) : forms_(forms), seed_(seed) {}
  // Restricts to forms whose name contains this text.
  void only(const std::string& text);

  void make(uint64_t number, Test& test, Snapshot& before) const;

 private:
  // One attempt at writing an instruction of `form` at `offset`; 0: does not fit the test.
  unsigned write(Random& r, Test& test, Snapshot& s, int form, unsigned offset, bool stream) const;
  bool accept(const Test& test, const Decoded& in, bool stream) const;

  const Forms& forms_;
  uint64_t seed_;
  std::vector<int> chosen_;
};

// --- direct.cc: gives an instruction's operands values under which it does something.

// Solves the address of the explicit memory operand (patching the displacement in `code` where that
// is the way) so that it becomes `target`; false: cannot be done.
bool aim_memory(Random& r, const Decoded& in, uint8_t* code, uint64_t address, uint64_t target,
                Snapshot& s);
// Where a memory operand of this instruction should lie.
uint64_t choose_target(Random& r, const Decoded& in);
// Implicit registers, branch targets, operand values.
void direct(Random& r, const Decoded& in, uint8_t* code, uint64_t slot, uint64_t address,
            uint64_t target, bool first, Snapshot& s);

// Whether nothing may follow this instruction in a stream: its results are not the same everywhere.
bool ends_stream(ZydisMnemonic m);
// Compares whose codes the manual leaves alone under an unmasked exception.
bool is_x87_compare(ZydisMnemonic m);

}  // namespace us::differential
