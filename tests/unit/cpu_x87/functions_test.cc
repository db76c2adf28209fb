// The functions that processors compute differently: ours are correctly rounded and the same
// everywhere.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <doctest/doctest.h>
#include <random>
#include <string>

#include "hv/cpu/x87_functions.h"

namespace us::test {
namespace {

using namespace hv::x87;

constexpr uint16_t kNearest = 0x37f, kDown = 0x77f, kUp = 0xb7f;

struct Golden {
  const char* name;
  Reg x, y,
      result;  // of x, or of (x, y); rounded from 400 bits, arguments reduced by the 66-bit pi
};
constexpr Golden kGolden[] = {
    {"fsin",
     {0x97b7'5092'3ceb'3ffd, 0x400d, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xfec7'f6d3'3a4e'ae91, 0xbffe, {}}},
    {"fsin",
     {0xea7b'5bf5'5eb5'61a4, 0x4011, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xf6ee'f262'9694'a700, 0x3ffe, {}}},
    {"fsin",
     {0x94b2'b8fd'a02f'34a6, 0xbfef, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0x94b2'b8fd'7ebd'0194, 0xbfef, {}}},
    {"fsin",
     {0xe8a8'529f'035e'fa25, 0x4020, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xbb6b'3c65'6186'7282, 0x3ffe, {}}},
    {"fsin",
     {0x8d00'38ec'4265'0644, 0x3ff9, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0x8cfe'70aa'f4bb'07e6, 0x3ff9, {}}},
    {"fsin",
     {0xb797'0386'fee2'9476, 0xc009, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xffec'259a'2314'd2a3, 0x3ffe, {}}},
    {"fcos",
     {0x8cb4'a0d7'd622'5675, 0x4009, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0x93fa'd3c2'8442'b59b, 0x3ffe, {}}},
    {"fcos",
     {0xdc6b'f1e1'a399'f82a, 0x3ff4, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xffff'fa11'b25b'dd8d, 0x3ffe, {}}},
    {"fcos",
     {0xa6d0'b944'a286'3a7f, 0xc022, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xd147'df7d'fa1c'0dc5, 0xbffc, {}}},
    {"fcos",
     {0xe3d2'e490'85ef'3430, 0x401a, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xe004'0bcf'eec6'df6c, 0x3ffe, {}}},
    {"fcos",
     {0xc6f8'da3e'abe1'9f58, 0x3fef, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xffff'fffe'cab4'38ff, 0x3ffe, {}}},
    {"fcos",
     {0xf51e'8722'c21b'6092, 0x4010, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0x94ec'8163'3236'985a, 0x3ffc, {}}},
    {"fptan",
     {0xc7b3'17d9'4d1f'e09f, 0xbfec, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xc7b3'17d9'4fa7'fd5f, 0xbfec, {}}},
    {"fptan",
     {0xc4f9'794c'dd93'3160, 0xc009, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xd891'4f80'5b19'a877, 0x4000, {}}},
    {"fptan",
     {0xeb8f'624f'b804'd820, 0x4023, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xbbbf'bc54'92a8'37ea, 0x3ffc, {}}},
    {"fptan",
     {0xc9c1'8070'b6d1'3089, 0x4025, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xd1ab'7f7c'02c7'e5da, 0x3ffe, {}}},
    {"fptan",
     {0xba66'76b3'651c'5253, 0xc01e, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xe9a3'cf8e'3aad'a85d, 0x3ffd, {}}},
    {"fptan",
     {0xf6ce'd90a'71d2'af72, 0x4026, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xa8e1'6a19'0000'56fd, 0x3fff, {}}},
    {"f2xm1",
     {0xdd92'b243'e0fd'67dd, 0x3fdd, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0x9995'2d53'13f8'be9a, 0x3fdd, {}}},
    {"f2xm1",
     {0xfeb0'adf4'22ce'dafb, 0x3fe4, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xb089'aada'e750'900b, 0x3fe4, {}}},
    {"f2xm1",
     {0xac0a'e4e2'f729'b4c8, 0xbff2, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xee7c'f1a9'46ee'8783, 0xbff1, {}}},
    {"f2xm1",
     {0xdaf0'105b'a06c'05a1, 0x3fea, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0x97c1'9185'd48e'0fa0, 0x3fea, {}}},
    {"f2xm1",
     {0xd55e'c1a5'81da'ad10, 0xbfef, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0x93e5'469e'5ceb'df85, 0xbfef, {}}},
    {"f2xm1",
     {0x88ba'fad9'59d5'4505, 0x3ffc, {}},
     {0x8000'0000'0000'0000, 0x3fff, {}},
     {0xc698'e29a'4e35'1c04, 0x3ffb, {}}},
    {"fyl2x",
     {0xbb7d'ae04'9591'8694, 0x3ff1, {}},
     {0xea6d'5547'ae96'6193, 0xbff5, {}},
     {0xc50e'2b2e'0576'e1ce, 0x3ff9, {}}},
    {"fyl2x",
     {0xfdb1'7f54'4799'7b6b, 0x4036, {}},
     {0xb210'9307'abd8'952c, 0xbffa, {}},
     {0x9bc5'33a8'42e9'2604, 0xc000, {}}},
    {"fyl2x",
     {0xd38e'504e'dc52'bdca, 0x4025, {}},
     {0x926b'aeaf'e79a'27e6, 0x4007, {}},
     {0xb130'fd5f'3dbb'79e9, 0x400c, {}}},
    {"fyl2x",
     {0xa7cf'94d7'b6bc'b64f, 0x3fd1, {}},
     {0xd4e4'41c3'a20a'b57c, 0x4007, {}},
     {0x97b7'5bf1'1373'c610, 0xc00d, {}}},
    {"fyl2x",
     {0x9fda'f625'48f2'f8ed, 0x3fab, {}},
     {0xda9b'f98c'7b64'71e2, 0xc009, {}},
     {0x8eea'2d19'4fa5'b76c, 0x4010, {}}},
    {"fyl2x",
     {0x96a9'1f39'7bc7'3a83, 0x3ff3, {}},
     {0x910d'7c25'ccf3'd0b3, 0xc002, {}},
     {0xd550'b1db'3b29'1342, 0x4005, {}}},
    {"fyl2xp1",
     {0x8526'ef70'2698'8f4f, 0x3fd5, {}},
     {0xea4a'5ed7'c4cf'8b96, 0x3ff8, {}},
     {0xafce'b4b3'5f6e'c665, 0x3fcf, {}}},
    {"fyl2xp1",
     {0x9d52'00ef'9ae0'85bf, 0x3ff3, {}},
     {0xb7eb'b70c'60b7'd02b, 0x4007, {}},
     {0xa309'5c6b'f0b2'12e4, 0x3ffc, {}}},
    {"fyl2xp1",
     {0xe183'0294'8d04'999d, 0xbfd4, {}},
     {0xff9e'4840'3c67'523f, 0x3ff6, {}},
     {0xa26e'06fd'7beb'2feb, 0xbfcd, {}}},
    {"fyl2xp1",
     {0x93b4'5a39'01da'0135, 0xbfc9, {}},
     {0x8808'5f68'891b'a6ad, 0xbffb, {}},
     {0xe277'1ce7'4148'0368, 0x3fc5, {}}},
    {"fyl2xp1",
     {0xcaa7'1c38'686e'80a9, 0x3fea, {}},
     {0xb092'58ce'27fc'a832, 0xbff6, {}},
     {0xc9a7'8f42'ea0d'1d30, 0xbfe2, {}}},
    {"fyl2xp1",
     {0xd6fe'09f7'de26'c45b, 0x3fd7, {}},
     {0xa369'55e7'f56a'b44e, 0x4001, {}},
     {0xc5fd'1203'd110'e6c2, 0x3fda, {}}},
    {"fpatan",
     {0xdeb1'35fa'75dd'67de, 0x400c, {}},
     {0xdde8'bcb9'a4d5'e415, 0xc008, {}},
     {0xfec5'4d2e'2194'030b, 0xbffa, {}}},
    {"fpatan",
     {0x9a42'3667'8f2b'bba3, 0xc012, {}},
     {0xcfbf'40b8'f0cc'8de3, 0x4005, {}},
     {0xc90d'2919'8cb6'e326, 0x4000, {}}},
    {"fpatan",
     {0xa260'db3c'6e62'91d2, 0xbffa, {}},
     {0xeffc'71e4'4d14'075d, 0xbffd, {}},
     {0xd3dc'b105'44de'9ec8, 0xbfff, {}}},
    {"fpatan",
     {0x8c65'f067'4d90'f551, 0x4000, {}},
     {0xea4b'3989'c9d4'59c5, 0x4007, {}},
     {0xc876'7323'e5ca'b94b, 0x3fff, {}}},
    {"fpatan",
     {0xe063'63ab'0522'2fb2, 0xc012, {}},
     {0xa21d'e112'a1d6'956c, 0xbff6, {}},
     {0xc90f'da9f'3d96'24b6, 0xc000, {}}},
    {"fpatan",
     {0xd51b'7f9d'a099'6d52, 0x4008, {}},
     {0xead6'b3cb'ade5'62bc, 0xc000, {}},
     {0x8d0d'3ce2'bf33'af12, 0xbff7, {}}},
};

Answer call(const std::string& name, const Reg& x, const Reg& y, uint16_t control) {
  if (name == "fsin") return fsin(x, control);
  if (name == "fcos") return fcos(x, control);
  if (name == "fptan") return fptan(x, control);
  if (name == "f2xm1") return f2xm1(x, control);
  if (name == "fyl2x") return fyl2x(x, y, control);
  return name == "fyl2xp1" ? fyl2xp1(x, y, control) : fpatan(x, y, control);
}

bool same(const Reg& a, const Reg& b) {
  return a.mantissa == b.mantissa && a.exponent == b.exponent;
}

long double value(const Reg& r) {
  long double v = 0;
  std::memcpy(&v, &r, 10);
  return v;
}
Reg reg(long double v) {
  Reg r{};
  std::memcpy(&r, &v, 10);
  return r;
}

uint64_t seed() {
  const char* given = std::getenv("US_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : 20240917;
}

}  // namespace

TEST_CASE("transcendentals of random arguments are correctly rounded and inexact") {
  for (const Golden& g : kGolden) {
    const Answer answer = call(g.name, g.x, g.y, kNearest);
    CHECK_MESSAGE(same(answer.value, g.result), g.name, " of ", g.x.mantissa, " gave ",
                  answer.value.mantissa);
    CHECK(answer.flags == kPe);
  }
}

TEST_CASE("rounding down and up bracket the nearest result one unit apart") {
  for (const Golden& g : kGolden) {
    const long double nearest = value(g.result);
    const long double down = value(call(g.name, g.x, g.y, kDown).value);
    const long double up = value(call(g.name, g.x, g.y, kUp).value);
    CHECK(std::nextafter(down, INFINITY) == up);
    CHECK((nearest == down || nearest == up));
  }
}

TEST_CASE("tiny arguments round away from themselves only on the side where the result lies") {
  const Reg tiny = {kIntegerBit, 0x3fff - 60, {}};
  CHECK(same(fsin(tiny, kNearest).value, tiny));
  CHECK(value(fsin(tiny, kDown).value) < value(tiny));
  CHECK(same(fsin(tiny, kUp).value, tiny));
  CHECK(same(fptan(tiny, kDown).value, tiny));
  CHECK(value(fptan(tiny, kUp).value) > value(tiny));
  CHECK(value(fcos(tiny, kDown).value) < 1);
  CHECK(value(fpatan(kOne, tiny, kDown).value) < value(tiny));
}

TEST_CASE("logarithms of powers of two are exact") {
  const Reg eight = reg(8), half = reg(0.5L);
  CHECK(value(fyl2x(eight, kOne, kNearest).value) == 3);
  CHECK(fyl2x(eight, kOne, kNearest).flags == 0);
  CHECK(value(fyl2x(half, eight, kNearest).value) == -8);
  CHECK(value(f2xm1(kOne, kNearest).value) == 1);
  CHECK(f2xm1(reg(-1), kNearest).flags == 0);
}

TEST_CASE("special operands of FYL2X and FPATAN give the manual's tables") {
  const Reg zero = reg(0), infinity = reg(INFINITY);
  CHECK(fyl2x(zero, kOne, kNearest).flags == kZe);
  CHECK(value(fyl2x(zero, kOne, kNearest).value) == -INFINITY);
  CHECK(fyl2x(zero, zero, kNearest).flags == kIe);
  CHECK(fyl2x(reg(-2), kOne, kNearest).flags == kIe);
  CHECK(fyl2x(kOne, infinity, kNearest).flags == kIe);
  CHECK(value(fpatan(reg(-0.0L), zero, kNearest).value) == 3.14159265358979323846264L);
  CHECK(value(fpatan(infinity, infinity, kNearest).value) == 0.785398163397448309615661L);
  CHECK(fpatan(infinity, kOne, kNearest).flags == 0);
}

TEST_CASE("remainders of operands less than 2^64 apart are those of fmod and remainder") {
  std::mt19937_64 random(seed());
  INFO("seed ", seed());
  for (int i = 0; i < 20000; ++i) {
    const auto exponent = [&](unsigned spread) {
      return static_cast<uint16_t>((0x3fff + random() % spread) | (random() & 0x8000));
    };
    const Reg a = {random() | kIntegerBit, exponent(60), {}};
    const Reg b = {random() | kIntegerBit, exponent(4), {}};
    unsigned conditions = 0;
    const Answer truncated = remainder(a, b, kNearest, false, conditions);
    CHECK((conditions & kC2) == 0);
    CHECK(value(truncated.value) == std::fmod(value(a), value(b)));
    const Answer nearest = remainder(a, b, kNearest, true, conditions);
    CHECK(value(nearest.value) == std::remainder(value(a), value(b)));
    CHECK((truncated.flags | nearest.flags) == 0);
  }
}

TEST_CASE("a far remainder is partial, and repeating it ends with the true one") {
  std::mt19937_64 random(seed());
  INFO("seed ", seed());
  for (int i = 0; i < 200; ++i) {
    Reg a = {random() | kIntegerBit, static_cast<uint16_t>(0x3fff + random() % 8000), {}};
    const Reg b = {random() | kIntegerBit, 0x3fff, {}};
    const long double expected = std::fmod(value(a), value(b));
    unsigned conditions = kC2, rounds = 0;
    for (; (conditions & kC2) != 0 && rounds < 300; ++rounds)
      a = remainder(a, b, kNearest, false, conditions).value;
    CHECK(rounds < 300);
    CHECK(value(a) == expected);
  }
}

TEST_CASE("an unmasked underflow wraps the exponent instead of denormalising") {
  const Reg least = {kIntegerBit, 1, {}};
  const Answer masked = f2xm1(least, kNearest);
  CHECK((masked.flags & kUe) != 0);
  CHECK(masked.value.exponent == 0);
  const Answer wrapped = f2xm1(least, static_cast<uint16_t>(kNearest & ~kUe));
  CHECK(wrapped.value.exponent == 1 - 1 + 24576);
}

}  // namespace us::test
