// The arithmetic flags as the host's own instructions give them: what LAHF puts into AH in the high
// byte, OF as 0 or 1 in the low byte. Translated code keeps the guest's flags in this form
// (Cpu::host_flags), the interpreter in that of flags.h.
#pragma once

#include <array>

#include "hv/cpu/flags.h"

namespace us::hv {

inline uint16_t pack_host_flags(const CpuState& c) {
  const uint64_t f = arithmetic_flags(c);
  return static_cast<uint16_t>(((f & 0xff) | 2) << 8 | (f >> 11 & 1));
}

struct LazyFlags {
  uint64_t result, aux;
};

// By (LAHF byte | OF << 8).
extern const std::array<LazyFlags, 512> kLazyFlags;

inline void unpack_host_flags(CpuState& c, uint16_t host) {
  const LazyFlags& lazy = kLazyFlags[(host >> 8) | (host & 1) << 8];
  c.flag_result = lazy.result;
  c.flag_aux = lazy.aux;
}

}  // namespace us::hv
