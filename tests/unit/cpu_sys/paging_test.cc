// Every paging mode against a second, independent statement of the rules. SDM 3A 4.3-4.7.
#include <doctest/doctest.h>
#include <random>
#include <string>

#include "guest.h"

namespace us::hv::test {
namespace {

enum class Kind { kLong4k, kLong2m, kLong1g, kPae4k, kPae2m, kOld4k, kOld4m };
constexpr Kind kKinds[] = {Kind::kLong4k, Kind::kLong2m, Kind::kLong1g, Kind::kPae4k,
                           Kind::kPae2m,  Kind::kOld4k,  Kind::kOld4m};
constexpr uint64_t kTables = 0x20000;
constexpr uint64_t kVirtual = 0x4065'4321;  // second GiB, so every index differs from zero
constexpr uint64_t kNx = uint64_t{1} << 63;

// Where the levels' entries are, top first, and how many bytes each has.
struct Tables {
  std::vector<uint64_t> at;
  unsigned bytes = 8;
  uint64_t phys = 0;  // what kVirtual maps to
};

bool is_long(Kind k) { return k == Kind::kLong4k || k == Kind::kLong2m || k == Kind::kLong1g; }
bool is_old(Kind k) { return k == Kind::kOld4k || k == Kind::kOld4m; }

// Builds the tables with everything allowed, A and D clear.
Tables build(Guest& g, Kind k) {
  Tables t;
  Cpu& c = g.cpu();
  c.cr0 = cr0::kPe | cr0::kPg | cr0::kEt;
  c.cr3 = kTables;
  c.efer = is_long(k) ? efer::kLme | efer::kLma : 0;
  c.cr4 = is_old(k) ? cr4::kPse : cr4::kPae;
  c.seg[kCs] = flat_segment(kCode64, is_long(k) ? kFlatCode64 : kFlatCode32);
  const uint64_t frame4k = 0x345000, frame2m = 0x600000, frame1g = 0, frame4m = 0x800000;
  if (is_old(k)) {
    t.bytes = 4;
    t.at = {kTables + (kVirtual >> 22) * 4};
    if (k == Kind::kOld4m) {
      g.poke32(t.at[0], frame4m | 0x87);
      t.phys = frame4m | (kVirtual & 0x3fffff);
    } else {
      g.poke32(t.at[0], (kTables + 0x1000) | 7);
      t.at.push_back(kTables + 0x1000 + (kVirtual >> 12 & 0x3ff) * 4);
      g.poke32(t.at[1], frame4k | 7);
      t.phys = frame4k | (kVirtual & 0xfff);
    }
    return t;
  }
  uint64_t table = kTables;
  const unsigned top = is_long(k) ? 3 : 1;
  const unsigned leaf = k == Kind::kLong1g ? 2 : k == Kind::kLong2m || k == Kind::kPae2m ? 1 : 0;
  if (!is_long(k)) {
    for (unsigned i = 0; i < 4; ++i) c.pdpte[i] = 0;
    c.pdpte[kVirtual >> 30] = kTables | 1;
  }
  for (unsigned level = top;; --level, table += 0x1000) {
    const uint64_t at = table + (kVirtual >> (12 + 9 * level) & 0x1ff) * 8;
    t.at.push_back(at);
    if (level == leaf) {
      const uint64_t frame = leaf == 0 ? frame4k : leaf == 1 ? frame2m : frame1g;
      g.poke64(at, frame | 7 | (leaf != 0 ? 0x80 : 0));
      t.phys = frame | (kVirtual & ((uint64_t{1} << (12 + 9 * leaf)) - 1));
      return t;
    }
    g.poke64(at, (table + 0x1000) | 7);
  }
}

uint64_t entry(Guest& g, const Tables& t, size_t i) {
  return t.bytes == 8 ? g.peek64(t.at[i]) : g.peek32(t.at[i]);
}
void set_entry(Guest& g, const Tables& t, size_t i, uint64_t value) {
  g.poke(t.at[i], &value, t.bytes);
}

// The rules once more, from the manual's text rather than from the walker.
struct Expected {
  bool ok;
  uint32_t error;
};
Expected expected(Guest& g, const Tables& t, Access access, bool user) {
  const Cpu& c = g.cpu();
  const bool nx_on = (c.efer & efer::kNxe) != 0 && (c.cr4 & cr4::kPae) != 0;
  uint32_t error = (access == Access::kWrite ? 2u : 0u) | (user ? 4u : 0u);
  if (access == Access::kExecute && (nx_on || (c.cr4 & cr4::kSmep) != 0)) error |= 16;
  bool user_page = true, writable = true, no_execute = false;
  for (size_t i = 0; i < t.at.size(); ++i) {
    const uint64_t e = entry(g, t, i);
    if ((e & 1) == 0) return {false, error};
    if (t.bytes == 8 && !nx_on && (e & kNx) != 0) return {false, error | 9};
    user_page &= (e & 4) != 0;
    writable &= (e & 2) != 0;
    no_execute |= t.bytes == 8 && (e & kNx) != 0;
  }
  bool ok = true;
  if (user && !user_page) ok = false;
  if (access == Access::kExecute && no_execute) ok = false;
  if (access == Access::kExecute && !user && user_page && (c.cr4 & cr4::kSmep) != 0) ok = false;
  if (access != Access::kExecute && !user && user_page && (c.cr4 & cr4::kSmap) != 0 &&
      (c.rflags_other & flag::kAc) == 0)
    ok = false;
  if (access == Access::kWrite && !writable && (user || (c.cr0 & cr0::kWp) != 0)) ok = false;
  return {ok, ok ? 0 : error | 1};
}

void check_one(Guest& g, const Tables& t, Access access, bool user) {
  Cpu& c = g.cpu();
  std::vector<uint64_t> before;
  for (size_t i = 0; i < t.at.size(); ++i) before.push_back(entry(g, t, i));
  const Expected want = expected(g, t, access, user);
  c.cr2 = 0;
  const Translation got = translate(c, kVirtual, access, user);
  REQUIRE(got.ok == want.ok);
  for (size_t i = 0; i < t.at.size(); ++i) {
    const bool last = i + 1 == t.at.size();
    const uint64_t marks = !want.ok ? 0 : 0x20 | (last && access == Access::kWrite ? 0x40 : 0);
    REQUIRE(entry(g, t, i) == (before[i] | marks));
  }
  if (want.ok) {
    REQUIRE(got.phys == t.phys);
  } else {
    REQUIRE(c.fault.vector == kPageFault);
    REQUIRE(c.fault.error == want.error);
    REQUIRE(c.cr2 == kVirtual);
  }
}

TEST_CASE(
    "every paging mode grants and refuses as the rules say, for every right and control bit") {
  const unsigned seed = 20240601;
  INFO("seed ", seed);
  std::mt19937_64 random(seed);
  for (const Kind kind : kKinds) {
    INFO("kind ", static_cast<int>(kind));
    Guest g;
    Cpu& c = g.cpu();
    for (int round = 0; round < 3000; ++round) {
      const Tables t = build(g, kind);
      const uint64_t bits = random();
      if (bits & 1) c.cr0 |= cr0::kWp;
      if (bits & 2) c.cr4 |= cr4::kSmep;
      if (bits & 4) c.cr4 |= cr4::kSmap;
      if (bits & 8) c.efer |= efer::kNxe;
      c.rflags_other = flag::kOne | (bits & 16 ? flag::kAc : 0);
      update_mode(c);
      for (size_t i = 0; i < t.at.size(); ++i) {
        uint64_t e = entry(g, t, i);
        const uint64_t r = random();
        if ((r & 3) == 0) e &= ~uint64_t{2};
        if ((r & 12) == 0) e &= ~uint64_t{4};
        if ((r & 0xf0) == 0) e &= ~uint64_t{1};
        if ((r & 0x300) == 0 && t.bytes == 8) e |= kNx;
        if ((r & 0x400) != 0) e |= 0x20;
        if ((r & 0x800) != 0 && i + 1 == t.at.size()) e |= 0x40;
        set_entry(g, t, i, e);
      }
      const Access access = static_cast<Access>((bits >> 8 & 0xff) % 3);
      check_one(g, t, access, (bits >> 20 & 1) != 0);
    }
  }
}

TEST_CASE("reserved bits of present entries fault with the reserved-bit error code") {
  for (const Kind kind : kKinds) {
    Guest g;
    const Tables t = build(g, kind);
    update_mode(g.cpu());
    for (size_t i = 0; i < t.at.size(); ++i) {
      const uint64_t old = entry(g, t, i);
      std::vector<uint64_t> reserved;
      if (t.bytes == 8) reserved = {uint64_t{1} << 40, uint64_t{1} << 51, kNx};
      if (t.bytes == 8 && i == 0 && is_long(kind)) reserved.push_back(0x80);
      if (t.bytes == 8 && !is_long(kind)) reserved.push_back(uint64_t{1} << 55);
      if (t.bytes == 8 && (old & 0x80) != 0) reserved.push_back(1 << 13);
      if (kind == Kind::kLong1g && i == 1) reserved.push_back(1 << 29);
      if (kind == Kind::kOld4m) reserved.push_back(1 << 21);
      for (const uint64_t bit : reserved) {
        INFO("kind ", static_cast<int>(kind), " level ", i, " bit ", bit);
        set_entry(g, t, i, old | bit);
        CHECK(!translate(g.cpu(), kVirtual, Access::kRead, false).ok);
        CHECK(g.cpu().fault.error == 9);
        set_entry(g, t, i, old);
      }
    }
  }
}

TEST_CASE("PSE-36 takes physical address bits 39 to 32 from entry bits 20 to 13") {
  Guest g;
  const Tables t = build(g, Kind::kOld4m);
  update_mode(g.cpu());
  set_entry(g, t, 0, 0x0080'0087 | 0xa5u << 13);
  CHECK(translate(g.cpu(), kVirtual, Access::kRead, false).phys ==
        (uint64_t{0xa5} << 32 | 0x800000 | (kVirtual & 0x3fffff)));
}

TEST_CASE("with paging off a linear address is the physical address, cut to 32 bits") {
  Guest g;
  const Translation t = translate(g.cpu(), 0x1'0000'1234, Access::kWrite, true);
  CHECK(t.ok);
  CHECK(t.phys == 0x1234);
}

TEST_CASE("a quiet translation finds the page and leaves A bits and fault state alone") {
  Guest g;
  const Tables t = build(g, Kind::kLong4k);
  update_mode(g.cpu());
  uint64_t phys = 0;
  CHECK(translate_quietly(g.cpu(), kVirtual, phys));
  CHECK(phys == t.phys);
  CHECK((entry(g, t, 3) & 0x60) == 0);
  CHECK(!translate_quietly(g.cpu(), kVirtual + 0x1000, phys));
  CHECK(g.cpu().exit == Exit::kContinue);
}

TEST_CASE("a non-canonical address raises #GP(0) and not a page fault") {
  Guest g;
  g.enter_long_mode();
  uint64_t value;
  CHECK(!load_slow(g.cpu(), 0x8000'0000'0000, &value, 8));
  CHECK(g.cpu().fault.vector == kGeneralProtection);
  CHECK(!load_slow(g.cpu(), 0x7fff'ffff'fffc, &value, 8));
  CHECK(g.cpu().exit == Exit::kFault);
}

TEST_CASE("PAE pointer entries with reserved bits are refused and leave the old ones") {
  Guest g;
  g.poke64(kTables, 0x5000 | 1);
  g.poke64(kTables + 8, 0x6000 | 1 | 2);
  CHECK(!load_pdptes(g.cpu(), kTables));
  CHECK(g.cpu().fault.vector == kGeneralProtection);
  CHECK(g.cpu().pdpte[0] == 0);
  g.poke64(kTables + 8, 0x6000);
  CHECK(load_pdptes(g.cpu(), kTables));
  CHECK(g.cpu().pdpte[0] == 0x5001);
}

}  // namespace
}  // namespace us::hv::test
