// Runs one instruction on the host's own processor, the reference for everything defined.
#pragma once

#include <span>

#include "tests/unit/cpu_int/machine.h"

namespace us::test {

enum class Outcome { kDone, kDivideError, kMemoryFault };

class Host {
 public:
  // Maps the data area at kData. Throws std::runtime_error if the host refuses.
  Host();
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  // Executes `code` (at most 48 bytes, no jumps) from state `m` and puts the result there. After a
  // fault the state is what the processor reported. One thread at a time.
  Outcome run(Machine& m, std::span<const uint8_t> code);

 private:
  uint8_t* page_ = nullptr;
  uint8_t* data_ = nullptr;
};

}  // namespace us::test
