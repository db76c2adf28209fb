// Runs one instruction on the host's own processor: the reference for everything but what
// processors are free to differ in.
#pragma once

#include <cstdint>
#include <span>

#include "tests/unit/cpu_sse/machine_state.h"

namespace us::test {

enum class Outcome : uint8_t {
  kDone,
  kSimdError,          // an unmasked exception: SIGFPE
  kGeneralProtection,  // SIGSEGV: the operand was not aligned
  kUndefined           // SIGILL
};

// Loads `state`, executes `code` (RBX and RDI pointing at byte `offset` of the window) and puts the
// registers back into `state`; after a fault they are those of the faulting instruction. One thread
// at a time.
Outcome run_on_host(MachineState& state, std::span<const uint8_t> code, unsigned offset);

}  // namespace us::test
