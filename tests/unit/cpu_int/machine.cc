#include "tests/unit/cpu_int/machine.h"

#include <fmt/format.h>

namespace us::test {

std::string difference(const Machine& host, const Machine& guest) {
  static constexpr const char* kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                             "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                             "r12", "r13", "r14", "r15"};
  std::string text;
  for (unsigned i = 0; i < 16; ++i)
    if (host.regs[i] != guest.regs[i])
      text += fmt::format(" {}: host {:#x}, guest {:#x};", kNames[i], host.regs[i], guest.regs[i]);
  if (host.flags != guest.flags)
    text += fmt::format(" flags: host {:#x}, guest {:#x};", host.flags, guest.flags);
  for (unsigned i = 0; i < kWindowSize; ++i) {
    if (host.window[i] == guest.window[i]) continue;
    text += fmt::format(" first byte of memory at {:#x}: host {:#x}, guest {:#x}", kWindow + i,
                        host.window[i], guest.window[i]);
    break;
  }
  return text;
}

}  // namespace us::test
