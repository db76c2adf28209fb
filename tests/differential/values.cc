#include "tests/differential/values.h"

#include <cstddef>
#include <cstring>

namespace us::differential {

uint64_t random_integer(Random& r) {
  switch (r.below(8)) {
    case 0: return r.below(256);
    case 1: return 0 - r.below(256);
    case 2: return uint64_t{1} << r.below(64);
    case 3: return (uint64_t{1} << r.below(64)) - 1;
    case 4: return ~(uint64_t{1} << r.below(64));
    case 5: return r.below(4) - 2;
    default: return r.next();
  }
}

uint32_t random_float(Random& r) {
  const auto sign = static_cast<uint32_t>(r.next() & 0x8000'0000u);
  const auto fraction = static_cast<uint32_t>(r.next() & 0x7f'ffff);
  switch (r.below(10)) {
    case 0: return sign;
    case 1: return sign | 0x7f80'0000u;
    case 2: return sign | 0x7f80'0000u | fraction;
    case 3: return sign | fraction;  // denormal
    case 4: return sign | static_cast<uint32_t>(126 + r.below(3)) << 23 | (fraction & 3);
    case 5: return sign | static_cast<uint32_t>(120 + r.below(45)) << 23 | (fraction & 0x7f'0000);
    case 6: return sign | static_cast<uint32_t>(1 + r.below(3)) << 23 | fraction;
    case 7: return sign | static_cast<uint32_t>(252 + r.below(3)) << 23 | fraction;
    default: return static_cast<uint32_t>(r.next());
  }
}

uint64_t random_double(Random& r) {
  const uint64_t sign = r.next() & (1ull << 63), fraction = r.next() >> 12;
  switch (r.below(10)) {
    case 0: return sign;
    case 1: return sign | 0x7ffull << 52;
    case 2: return sign | 0x7ffull << 52 | fraction;
    case 3: return sign | fraction;
    case 4: return sign | (1022 + r.below(3)) << 52 | (fraction & 3);
    case 5: return sign | (1010 + r.below(80)) << 52 | (fraction & ~0xffff'ffffull);
    case 6: return sign | (1 + r.below(3)) << 52 | fraction;
    case 7: return sign | (2044 + r.below(3)) << 52 | fraction;
    default: return r.next();
  }
}

void random_extended(Random& r, uint64_t& mantissa, uint16_t& exponent) {
  constexpr uint64_t kInteger = 1ull << 63;
  const auto sign = static_cast<uint16_t>(r.next() & 0x8000);
  const auto at = [sign](uint64_t e) { return static_cast<uint16_t>(sign | e); };
  mantissa = kInteger | r.next();
  switch (r.below(16)) {
    case 0: mantissa = 0, exponent = sign; break;
    case 1: mantissa = kInteger, exponent = at(0x7fff); break;
    case 2: mantissa |= r.next(), exponent = at(0x7fff); break;
    case 3: mantissa = r.next() >> r.below(64), exponent = sign; break;  // denormals
    case 4: mantissa = r.next(), exponent = static_cast<uint16_t>(r.next()); break;
    case 5: mantissa = kInteger, exponent = at(0x3ffe + r.below(3)); break;
    case 6: mantissa = kInteger | r.below(4), exponent = at(0x3ffe + r.below(3)); break;
    case 7: exponent = at(1 + r.below(3)); break;
    case 8: exponent = at(0x7ffc + r.below(3)); break;
    case 9: mantissa &= ~0ull << r.below(63), exponent = at(0x3ff0 + r.below(80)); break;
    case 10: mantissa &= ~0x7ffull, exponent = at(0x3fff - 1030 + r.below(2060)); break;
    case 11: exponent = at(0x3fff - 140 + r.below(280)); break;
    default: exponent = at(0x3fe0 + r.below(70)); break;
  }
}

namespace {

uint64_t random_chunk(Random& r) {
  switch (r.below(5)) {
    case 0: return random_double(r);
    case 1: return random_float(r) | uint64_t{random_float(r)} << 32;
    case 2: return random_integer(r);
    default: return r.next();
  }
}

uint32_t random_mxcsr(Random& r) {
  uint32_t v = 0x1f80;
  if (r.percent(60)) return v | static_cast<uint32_t>(r.next() & 0x3f);
  v |= static_cast<uint32_t>(r.next() & 0xe07f);  // rounding, FTZ, DAZ, flags
  if (r.percent(50)) v &= ~static_cast<uint32_t>(r.next() & 0x1f80);
  return v;
}

void fill_x87(Random& r, Snapshot& s) {
  constexpr uint16_t kPrecisions[] = {0x000, 0x200, 0x300};
  s.fcw = 0x37f;
  if (r.percent(40))
    s.fcw = static_cast<uint16_t>(0x7f | kPrecisions[r.below(3)] | (r.next() & 0xc00));
  if (r.percent(25)) s.fcw = static_cast<uint16_t>(s.fcw & ~(r.next() & 0x3f));
  const auto top = static_cast<unsigned>(r.below(8));
  s.fsw = static_cast<uint16_t>((top << 11) | (r.next() & 0x4700));
  if (r.percent(40)) {
    const auto flags = static_cast<uint16_t>(r.next() & 0x7f);
    const bool pending = (flags & ~s.fcw & 0x3f) != 0;
    // A pending exception makes most instructions do nothing but raise it.
    if (!pending || r.percent(20)) s.fsw |= static_cast<uint16_t>(flags | (pending ? 0x8080 : 0));
  }
  const auto depth = static_cast<unsigned>(r.percent(70) ? 2 + r.below(6) : r.below(9));
  s.ftw = 0;
  for (unsigned i = 0; i < depth; ++i) s.ftw = static_cast<uint16_t>(s.ftw | 1u << ((top + i) & 7));
  if (r.percent(8)) s.ftw = r.byte();
  for (auto& reg : s.st) random_extended(r, reg.mantissa, reg.exponent);
}

void fill_vectors(Random& r, Snapshot& s) {
  for (auto& x : s.xmm) {
    const uint64_t kind = r.below(4);
    for (uint64_t& q : x.q) {
      if (kind == 0) q = random_double(r);
      if (kind == 1) q = random_float(r) | uint64_t{random_float(r)} << 32;
      if (kind == 2) q = random_integer(r);
      if (kind == 3) q = r.next();
    }
  }
  s.mxcsr = random_mxcsr(r);
}

}  // namespace

void fill_state(Random& r, Snapshot& s) {
  std::memset(static_cast<void*>(&s), 0, offsetof(Snapshot, data));
  for (uint64_t& g : s.gpr) g = random_integer(r);
  s.rflags = 0x202 | (r.next() & 0x8d5);
  if (r.percent(12)) s.rflags |= 0x400;  // DF
  fill_x87(r, s);
  fill_vectors(r, s);
  for (unsigned i = 0; i < kDataWindow; i += 8) {
    const uint64_t chunk = random_chunk(r);
    std::memcpy(s.data + i, &chunk, 8);
  }
  for (unsigned i = 0; i < kStackWindow; i += 8) {
    const uint64_t chunk = r.next();
    std::memcpy(s.stack + i, &chunk, 8);
  }
}

}  // namespace us::differential
