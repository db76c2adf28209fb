// Kernel files as they come: the first byte chooses the protocol asked for, the rest is the file.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/boot/load_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto choice = static_cast<us::hv::BootChoice>(data[0] & 3);
  static constexpr uint8_t kInitrd[100] = {};
  us::hv::load_and_check({data + 1, size - 1}, kInitrd, choice);
  return 0;
}
