#include "tests/unit/cpu_sse/machine_state.h"

#include <cstring>
#include <fmt/format.h>

namespace us::test {
namespace {

uint32_t random_single(Random& random) {
  static constexpr uint32_t kSpecial[] = {
      0,           0x0000'0001, 0x007f'ffff, 0x0080'0000, 0x0080'0001, 0x3f80'0000, 0x3f80'0001,
      0x3f00'0000, 0x3fc0'0000, 0x4020'0000, 0x4eff'ffff, 0x4f00'0000, 0x5eff'ffff, 0x5f00'0000,
      0x7e80'0000, 0x7f00'0000, 0x7f7f'ffff, 0x7f80'0000, 0x7f80'0001, 0x7fbf'1234, 0x7fc0'0000,
      0x7fc5'4321, 0x4b00'0001, 0x4b80'0000, 0x0040'0000, 0x1f80'0000, 0x2000'0001, 0x5f80'0000};
  const auto r = random();
  const uint32_t sign = (r & 1) != 0 ? 0x8000'0000 : 0;
  if ((r & 6) == 0) return static_cast<uint32_t>(r >> 32);
  if ((r & 6) == 2) {  // moderate numbers
    return sign | static_cast<uint32_t>(110 + (r >> 8) % 40) << 23 | ((r >> 32) & 0x7f'ffff);
  }
  return sign | kSpecial[(r >> 8) % std::size(kSpecial)];
}

uint64_t random_double(Random& random) {
  static constexpr uint64_t kSpecial[] = {0,
                                          1,
                                          0x000f'ffff'ffff'ffff,
                                          0x0010'0000'0000'0000,
                                          0x0010'0000'0000'0001,
                                          0x3ff0'0000'0000'0000,
                                          0x3ff0'0000'0000'0001,
                                          0x3fe0'0000'0000'0000,
                                          0x3ff8'0000'0000'0000,
                                          0x4004'0000'0000'0000,
                                          0x41df'ffff'ffc0'0000,
                                          0x41e0'0000'0000'0000,
                                          0x43df'ffff'ffff'ffff,
                                          0x43e0'0000'0000'0000,
                                          0x7fe0'0000'0000'0000,
                                          0x7fef'ffff'ffff'ffff,
                                          0x7ff0'0000'0000'0000,
                                          0x7ff0'0000'0000'0001,
                                          0x7ff7'1234'5678'9abc,
                                          0x7ff8'0000'0000'0000,
                                          0x7ffa'5678'0000'1234,
                                          0x380f'ffff'ffff'ffff,  // around single's smallest
                                          0x3810'0000'0000'0000,
                                          0x36a0'0000'0000'0000,
                                          0x47ef'ffff'e000'0000,  // around single's largest
                                          0x47ef'ffff'f000'0000,
                                          0x4330'0000'0000'0001,
                                          0x0008'0000'0000'0000,
                                          0x1ff0'0000'0000'0000,
                                          0x2000'0000'0000'0001};
  const auto r = random();
  const uint64_t sign = (r & 1) << 63;
  if ((r & 6) == 0) return random();
  if ((r & 6) == 2) return sign | (1000 + (r >> 8) % 80) << 52 | (random() >> 12);
  return sign | kSpecial[(r >> 8) % std::size(kSpecial)];
}

}  // namespace

hv::Xmm random_xmm(Random& random) {
  hv::Xmm x;
  switch (random() % 4) {
    case 0:
      for (uint64_t& q : x.q) q = random();
      break;
    case 1:  // few different bytes, zeros among them: comparisons and text meet
      for (uint8_t& b : x.b) b = static_cast<uint8_t>((random() % 4) * 0x55);
      break;
    case 2:
      for (uint32_t& d : x.d) d = random_single(random);
      break;
    default:
      for (uint64_t& q : x.q) q = random_double(random);
      break;
  }
  return x;
}

MachineState random_state(Random& random) {
  MachineState s;
  for (hv::Xmm& x : s.xmm) x = random_xmm(random);
  for (uint64_t& m : s.mm) m = random_xmm(random).q[random() & 1];
  for (uint16_t& h : s.mm_high) h = static_cast<uint16_t>(random());
  for (uint64_t& g : s.gpr) {
    g = random_xmm(random).q[0];
    if (random() % 3 == 0) g = static_cast<uint64_t>(static_cast<int64_t>(random() % 64) - 32);
  }
  s.valid = static_cast<uint8_t>(random());
  s.top = random() & 7;
  s.flags = 2 | (random() & hv::flag::kArithmetic);
  // Rounding, FTZ, DAZ and sticky flags at will; everything masked.
  s.mxcsr = 0x1f80 | (random() & 0xe07f);
  for (unsigned i = 0; i < kWindowSize; i += 16) {
    const hv::Xmm x = random_xmm(random);
    std::memcpy(s.window.data() + i, &x, sizeof x);
  }
  return s;
}

std::string difference(const MachineState& a, const MachineState& b) {
  std::string out;
  const auto say = [&out](const std::string& name, auto want, auto got) {
    if (want != got) out += fmt::format("  {}: host {:x}, here {:x}\n", name, want, got);
  };
  for (unsigned i = 0; i < 16; ++i) {
    for (unsigned h = 2; h-- > 0;)
      say(fmt::format("xmm{}[{}]", i, h), a.xmm[i].q[h], b.xmm[i].q[h]);
    if (!reserved_gpr(i)) say(fmt::format("gpr{}", i), a.gpr[i], b.gpr[i]);
  }
  for (unsigned i = 0; i < 8; ++i) {
    say(fmt::format("mm{}", i), a.mm[i], b.mm[i]);
    say(fmt::format("mm{} above", i), a.mm_high[i], b.mm_high[i]);
  }
  say("tags", a.valid, b.valid);
  say("top", a.top, b.top);
  say("flags", a.flags & hv::flag::kArithmetic, b.flags & hv::flag::kArithmetic);
  say("mxcsr", a.mxcsr, b.mxcsr);
  for (unsigned i = 0; i < kWindowSize; ++i)
    say(fmt::format("memory[{}]", i), a.window[i], b.window[i]);
  return out;
}

}  // namespace us::test
