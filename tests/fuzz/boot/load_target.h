// What both loader targets hold the loader to: it never crashes, and what it returns is sane.
#pragma once

#include "hv/boot/boot.h"

namespace us::hv {

inline void load_and_check(ByteSpan kernel, ByteSpan initrd, BootChoice choice) {
  constexpr uint64_t kMemory = 24 << 20;
  static const auto memory = GuestMemory::create(kMemory);
  BootConfig config;
  config.kernel = "kernel";
  config.initrd = "initrd";
  config.cmdline = "console=ttyS0";
  config.choice = choice;
  const auto state = load_kernel_bytes(*memory.value(), kernel, initrd, config);
  if (!state) {
    US_CHECK(state.error().id.starts_with("BOOT-0"));
    return;
  }
  US_CHECK(memory.value()->contains(GuestPhys(state->rip), 1));
  US_CHECK(state->long_mode == (state->protocol == BootProtocol::kLinux64));
}

}  // namespace us::hv
