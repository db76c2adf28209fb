#include "ipt/scanner.h"

#include <cpuid.h>

namespace us::ipt {

bool PsbFinder::advance(const uint8_t*& at, const uint8_t* end) {
  while (at < end) {
    if (matched_ == 0) {
      const void* const first = std::memchr(at, opcode::kExtended, static_cast<size_t>(end - at));
      if (first == nullptr) {
        at = end;
        return false;
      }
      at = static_cast<const uint8_t*>(first);
    }
    const uint8_t byte = *at++;
    const uint8_t wanted = matched_ % 2 == 0 ? opcode::kExtended : extended::kPsb;
    if (byte == wanted) {
      if (++matched_ < kPsbBytes) continue;
      matched_ = 0;
      return true;
    }
    matched_ = byte == opcode::kExtended ? 1 : 0;
  }
  return false;
}

bool has_avx2_kernel() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi")) return false;
  if (!__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("popcnt")) return false;
  if (!__builtin_cpu_is("amd")) return true;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
  const unsigned family = ((eax >> 8) & 0xf) + ((eax >> 20) & 0xff);  // AMD APM 3, Fn0000_0001
  return family >= 0x19;
}

}  // namespace us::ipt
