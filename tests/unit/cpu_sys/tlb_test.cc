// What the translation caches keep, and when they must let go. SDM 3A 4.10.
#include <doctest/doctest.h>

#include "guest.h"
#include "hv/cpu/access.h"

namespace us::hv::test {
namespace {

constexpr uint64_t kPt = 0x30000;
constexpr uint64_t kPage = 0x4000'0000;  // first page of the second GiB

// Replaces the 2 MiB page at kPage by a table of 4 KiB pages leading to 8 MiB and up.
void split(Guest& g, uint64_t extra = 0) {
  for (uint64_t i = 0; i < 512; ++i) g.poke64(kPt + i * 8, (0x80'0000 + i * 0x1000) | 7 | extra);
  g.poke64(kPml4At + 0x3000, kPt | 7);
  flush_tlb_all(g.cpu());
}

TEST_CASE("a load through a cached translation sees the old page until INVLPG") {
  Guest g;
  g.enter_long_mode();
  split(g);
  g.poke64(0x80'0000, 1);
  g.poke64(0x80'5000, 2);
  CHECK(load<uint64_t>(g.cpu(), kPage).value == 1);
  g.poke64(kPt, 0x80'5000 | 7);
  CHECK(load<uint64_t>(g.cpu(), kPage).value == 1);
  flush_tlb_page(g.cpu(), kPage + 123);
  CHECK(load<uint64_t>(g.cpu(), kPage).value == 2);
}

TEST_CASE("a stale read-only entry never makes a store fault once the tables allow it") {
  Guest g;
  g.enter_long_mode();
  split(g);
  g.poke64(kPt, 0x80'0000 | 5);
  CHECK(load<uint64_t>(g.cpu(), kPage).ok);
  CHECK(!store<uint64_t>(g.cpu(), kPage, 7));
  CHECK(g.cpu().fault.error == 3);
  g.poke64(kPt, 0x80'0000 | 7);
  CHECK(store<uint64_t>(g.cpu(), kPage, 7));
  CHECK(g.peek64(0x80'0000) == 7);
}

TEST_CASE("INVLPG anywhere in a large page drops all of its pieces") {
  Guest g;
  g.enter_long_mode();
  g.poke64(kPml4At + 0x3000, 0x80'0000 | 0x87);
  g.poke64(0x80'3000, 1);
  g.poke64(0xa0'3000, 2);
  CHECK(load<uint64_t>(g.cpu(), kPage + 0x3000).value == 1);
  g.poke64(kPml4At + 0x3000, 0xa0'0000 | 0x87);
  flush_tlb_page(g.cpu(), kPage + 0x10'0000);
  CHECK(load<uint64_t>(g.cpu(), kPage + 0x3000).value == 2);
}

TEST_CASE("MOV CR3 keeps global pages and drops the others") {
  Guest g;
  g.enter_long_mode();
  split(g);
  g.poke64(kPt + 8, 0x80'1000 | 0x107);
  g.poke64(0x80'0000, 1);
  g.poke64(0x80'1000, 2);
  CHECK(load<uint64_t>(g.cpu(), kPage).value == 1);
  CHECK(load<uint64_t>(g.cpu(), kPage + 0x1000).value == 2);
  g.poke64(kPt, 0x80'5000 | 7);
  g.poke64(kPt + 8, 0x80'5000 | 7);
  g.poke64(0x80'5000, 3);
  flush_tlb_nonglobal(g.cpu());
  CHECK(load<uint64_t>(g.cpu(), kPage).value == 3);
  CHECK(load<uint64_t>(g.cpu(), kPage + 0x1000).value == 2);
  flush_tlb_all(g.cpu());
  CHECK(load<uint64_t>(g.cpu(), kPage + 0x1000).value == 3);
}

TEST_CASE(
    "reading a clean page does not mark it dirty, the first store does, and direct stores follow") {
  Guest g;
  g.enter_long_mode();
  split(g, 0x60);
  uint8_t& flags = g.memory->page_flags()[0x800];
  flags = 0;
  CHECK(load<uint64_t>(g.cpu(), kPage).ok);
  CHECK(flags == 0);
  CHECK(direct_write(g.cpu(), kPage, 8) == nullptr);
  CHECK(store<uint64_t>(g.cpu(), kPage, 5));
  CHECK(flags == GuestMemory::kPageDirty);
  CHECK(direct_write(g.cpu(), kPage, 8) != nullptr);
  flags = 0;
  drop_write_tags(g.cpu());
  CHECK(store<uint64_t>(g.cpu(), kPage, 6));
  CHECK(flags == GuestMemory::kPageDirty);
}

TEST_CASE("a store sets D even when an earlier load cached the page") {
  Guest g;
  g.enter_long_mode();
  split(g);
  CHECK(load<uint64_t>(g.cpu(), kPage).ok);
  CHECK((g.peek64(kPt) & 0x60) == 0x20);
  CHECK(store<uint64_t>(g.cpu(), kPage, 5));
  CHECK((g.peek64(kPt) & 0x60) == 0x60);
}

TEST_CASE(
    "a store that crosses into an unmapped page changes nothing and reports the second page") {
  Guest g;
  g.enter_long_mode();
  split(g);
  g.poke64(kPt + 8, 0);
  g.poke64(0x80'0ff8, 0x1111'1111'1111'1111);
  CHECK(!store<uint64_t>(g.cpu(), kPage + 0xffc, ~uint64_t{0}));
  CHECK(g.cpu().cr2 == kPage + 0x1000);
  CHECK(g.peek64(0x80'0ff8) == 0x1111'1111'1111'1111);
  g.poke64(kPt + 8, 0x80'9000 | 7);
  CHECK(store<uint64_t>(g.cpu(), kPage + 0xffc, 0xaaaa'bbbb'cccc'dddd));
  CHECK(g.peek32(0x80'0ffc) == 0xcccc'dddd);
  CHECK(g.peek32(0x80'9000) == 0xaaaa'bbbb);
  CHECK(load<uint64_t>(g.cpu(), kPage + 0xffc).value == 0xaaaa'bbbb'cccc'dddd);
}

TEST_CASE("device memory asks for the stepper, which then reaches the bus once") {
  Guest g;
  g.enter_long_mode();
  const uint64_t device = 0x7000'0000;
  CHECK(!load<uint32_t>(g.cpu(), device).ok);
  CHECK(g.cpu().exit == Exit::kNeedsStep);
  CHECK(!store<uint32_t>(g.cpu(), device, 1));
  CHECK(!probe_write(g.cpu(), device, 4));
  CHECK(g.bus.calls.empty());
  g.cpu().stepping = true;
  CHECK(load<uint32_t>(g.cpu(), device + 4).value == 0x5566'7788);
  CHECK(store<uint16_t>(g.cpu(), device + 8, 0x1234));
  g.cpu().stepping = false;
  REQUIRE(g.bus.calls.size() == 2);
  CHECK(g.bus.calls[0].size == 4);
  CHECK(g.bus.calls[1].address == device + 8);
  CHECK(g.bus.calls[1].value == 0x1234);
}

TEST_CASE("user, supervisor and SMAP-open translations are kept apart") {
  Guest g;
  g.enter_long_mode();
  split(g);
  Cpu& c = g.cpu();
  c.cr4 |= cr4::kSmap;
  flush_tlb_all(c);
  update_mode(c);
  CHECK(!load<uint64_t>(c, kPage).ok);
  CHECK(c.fault.error == 1);
  write_rflags(c, flag::kAc, flag::kAc);
  CHECK(load<uint64_t>(c, kPage).ok);
  write_rflags(c, 0, flag::kAc);
  CHECK(!load<uint64_t>(c, kPage).ok);
  set_cpl(c, 3);
  CHECK(load<uint64_t>(c, kPage).ok);
  CHECK(!read_system(c, kPage, &c.scratch, 8));  // implicit accesses are never let through
}

TEST_CASE("a program that overwrites its next instruction runs the new one") {
  Guest g;
  g.enter_long_mode();
  // mov byte [rip+1], 0x43 ; then: inc eax (ff c0) becomes inc ebx (ff c3) by its second byte; hlt
  g.put(kCodeAt, {0xc6, 0x05, 0x01, 0x00, 0x00, 0x00, 0xc3, 0xff, 0xc0, 0xf4});
  CHECK(g.run() == StopReason::kHalted);
  CHECK(g.cpu().regs[kRax] == 0);
  CHECK(g.cpu().regs[kRbx] == 1);
}

TEST_CASE("a page whose decoded code was all overwritten takes direct stores again") {
  Guest g;
  g.enter_long_mode();
  g.put(kCodeAt, {0xf4});
  CHECK(g.run() == StopReason::kHalted);
  const uint64_t page = kCodeAt / kPageSize;
  CHECK((g.memory->page_flags()[page] & GuestMemory::kPageHasCode) != 0);
  CHECK(!store<uint8_t>(g.cpu(), kCodeAt, 0x90));
  CHECK(g.cpu().exit == Exit::kNeedsStep);
  g.cpu().stepping = true;
  CHECK(store<uint8_t>(g.cpu(), kCodeAt, 0x90));
  g.cpu().stepping = false;
  CHECK((g.memory->page_flags()[page] & GuestMemory::kPageHasCode) == 0);
  CHECK(store<uint8_t>(g.cpu(), kCodeAt, 0x90));
  CHECK(direct_write(g.cpu(), kCodeAt, 1) != nullptr);
}

}  // namespace
}  // namespace us::hv::test
