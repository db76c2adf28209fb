#include <doctest/doctest.h>

#include "tests/unit/devices/rig.h"

using namespace us;
using namespace us::hv;
using us::hv::test::Rig;

namespace {

constexpr uint64_t kIpiSelf = 0x40000;
constexpr uint32_t kMsrApicBase = 0x1b;

std::optional<uint8_t> take(Rig& rig) { return rig.platform.acknowledge_interrupt(); }

}  // namespace

TEST_CASE("a self IPI is pending, is acknowledged with its vector and ends with an EOI") {
  Rig rig;
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.set_apic(0x300, kIpiSelf | 0x55);
  CHECK(rig.platform.take_attention());
  CHECK_FALSE(rig.platform.take_attention());
  CHECK((rig.apic(0x220) & 1u << 21) != 0);  // IRR of 0x55
  CHECK(take(rig) == 0x55);
  CHECK_FALSE(rig.platform.interrupt_pending());
  CHECK(rig.apic(0xa0) == 0x50);             // PPR
  CHECK((rig.apic(0x120) & 1u << 21) != 0);  // ISR
  rig.eoi();
  CHECK(rig.apic(0xa0) == 0);
}

TEST_CASE("an interrupt of the class in service waits, one of a higher class does not") {
  Rig rig;
  rig.set_apic(0x300, kIpiSelf | 0x51);
  CHECK(take(rig) == 0x51);
  rig.set_apic(0x300, kIpiSelf | 0x5f);
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.set_apic(0x300, kIpiSelf | 0x61);
  CHECK(take(rig) == 0x61);
  rig.eoi();
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.eoi();
  CHECK(take(rig) == 0x5f);
}

TEST_CASE("CR8 holds interrupts back up to its class and is the TPR's upper half") {
  Rig rig;
  rig.platform.set_task_priority(5);
  CHECK(rig.apic(0x80) == 0x50);
  rig.set_apic(0x300, kIpiSelf | 0x5a);
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.platform.set_task_priority(4);
  CHECK(rig.platform.take_attention());
  CHECK(take(rig) == 0x5a);
}

TEST_CASE("vectors below 16 raise the send error, which ESR shows after a write") {
  Rig rig;
  rig.set_apic(0x370, 0xfe);  // error LVT
  rig.set_apic(0x300, kIpiSelf | 3);
  CHECK(rig.apic(0x280) == 0);
  rig.set_apic(0x280, 0);
  CHECK(rig.apic(0x280) == 1u << 5);
  CHECK(take(rig) == 0xfe);
}

TEST_CASE("APIC_BASE allows xAPIC to x2APIC to off, refuses x2APIC back to xAPIC") {
  Rig rig;
  uint64_t base = 0;
  REQUIRE(rig.platform.msr_read(kMsrApicBase, base));
  CHECK(base == 0xfee00900);
  CHECK_FALSE(rig.platform.msr_write(kMsrApicBase, (base & ~0x800ull) | 0x400));  // x2 while off
  uint64_t value = 0;
  CHECK_FALSE(rig.platform.msr_read(0x802, value));  // not in x2APIC mode yet
  CHECK(rig.platform.msr_write(kMsrApicBase, base | 0x400));
  CHECK(rig.read32(kLocalApicBase + 0x30) == 0xffffffff);  // the page is gone
  REQUIRE(rig.platform.msr_read(0x803, value));
  CHECK(value == 0x50014);
  CHECK_FALSE(rig.platform.msr_write(kMsrApicBase, base));
  CHECK(rig.platform.msr_write(kMsrApicBase, base & ~0xc00ull));
  CHECK(rig.platform.msr_write(kMsrApicBase, base));
  CHECK(rig.apic(0xf0) == 0xff);  // as after a reset
  CHECK_FALSE(rig.platform.msr_write(kMsrApicBase, base | 1));
  CHECK_FALSE(rig.platform.msr_write(kMsrApicBase, base | 1ull << 52));
}

TEST_CASE("x2APIC registers refuse reserved bits and the wrong direction, SELF IPI works") {
  Rig rig;
  REQUIRE(rig.platform.msr_write(kMsrApicBase, 0xfee00d00));
  uint64_t value = 0;
  CHECK_FALSE(rig.platform.msr_write(0x802, 0));
  CHECK_FALSE(rig.platform.msr_write(0x808, 0x100));
  CHECK_FALSE(rig.platform.msr_write(0x80b, 1));
  CHECK_FALSE(rig.platform.msr_read(0x80b, value));
  CHECK_FALSE(rig.platform.msr_read(0x80e, value));
  CHECK_FALSE(rig.platform.msr_read(0x831, value));
  CHECK_FALSE(rig.platform.msr_write(0x828, 1));
  CHECK_FALSE(rig.platform.msr_read(0x83f, value));
  CHECK(rig.platform.msr_write(0x83f, 0x77));
  CHECK(take(rig) == 0x77);
  CHECK(rig.platform.msr_write(0x80b, 0));
  CHECK(rig.platform.msr_write(0x830, 0x31));  // physical, to APIC 0
  CHECK(take(rig) == 0x31);
  CHECK(rig.platform.msr_write(0x80b, 0));
  CHECK(rig.platform.msr_write(0x830, 0xffffffff00000032));
  CHECK(take(rig) == 0x32);
}

TEST_CASE("logical destinations match in the flat and the cluster model") {
  Rig rig;
  rig.set_apic(0xd0, 0x02000000);
  rig.set_apic(0x310, 0x02000000);
  rig.set_apic(0x300, 0x800 | 0x41);
  CHECK(take(rig) == 0x41);
  rig.eoi();
  rig.set_apic(0x310, 0x04000000);
  rig.set_apic(0x300, 0x800 | 0x42);
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.set_apic(0xe0, 0x0fffffff);  // cluster model
  rig.set_apic(0xd0, 0x31000000);
  rig.set_apic(0x310, 0x31000000);
  rig.set_apic(0x300, 0x800 | 0x43);
  CHECK(take(rig) == 0x43);
}

TEST_CASE("the board's NMI comes through LINT1 and is taken once") {
  Rig rig;
  rig.platform.nmi();
  CHECK(rig.platform.take_attention());
  CHECK(rig.platform.nmi_pending());
  CHECK(rig.platform.take_nmi());
  CHECK_FALSE(rig.platform.take_nmi());
  rig.set_apic(0x360, 0x10400);  // masked
  rig.platform.nmi();
  CHECK_FALSE(rig.platform.nmi_pending());
}

TEST_CASE("an ISA interrupt reaches its I/O APIC pin once an edge; masked edges are lost") {
  Rig rig;
  rig.set_redirection(4, 0x34);
  rig.out8(0x3f9, 2);  // transmitter-empty interrupt on
  CHECK(take(rig) == 0x34);
  rig.eoi();
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.in8(0x3fa);  // acknowledge: the line drops
  rig.set_redirection(4, 0x10034);
  rig.out8(0x3f8, 'x');
  rig.set_redirection(4, 0x34);
  CHECK_FALSE(rig.platform.interrupt_pending());
}

TEST_CASE("a level interrupt sets remote IRR and comes again after EOI while asserted") {
  Rig rig;
  rig.set_redirection(9, 0x8000 | 0x39);
  rig.platform.pio_write(kPortPm1Event + 2, 2, 0x100);  // power button enabled
  rig.platform.power_button();
  CHECK((rig.redirection(9) & 0x4000) != 0);
  CHECK(take(rig) == 0x39);
  rig.eoi();
  CHECK(take(rig) == 0x39);
  rig.platform.pio_write(kPortPm1Event, 2, 0x100);  // clears the status, drops the line
  rig.eoi();
  CHECK_FALSE(rig.platform.interrupt_pending());
  CHECK((rig.redirection(9) & 0x4000) == 0);
}

TEST_CASE("the I/O APIC says 24 pins, keeps its ID and ignores writes to its version") {
  Rig rig;
  rig.write32(kIoApicBase, 1);
  CHECK(rig.read32(kIoApicBase + 0x10) == 0x170020);
  rig.write32(kIoApicBase + 0x10, 0xdeadbeef);
  CHECK(rig.read32(kIoApicBase + 0x10) == 0x170020);
  rig.write32(kIoApicBase, 0);
  rig.write32(kIoApicBase + 0x10, 0x5000000);
  CHECK(rig.read32(kIoApicBase + 0x10) == 0x5000000);
  rig.write32(kIoApicBase, 2);
  CHECK(rig.read32(kIoApicBase + 0x10) == 0x5000000);
  CHECK(rig.redirection(23) == 0x10000);
}

TEST_CASE("the 8259 pair delivers through LINT0 in virtual wire mode, slave by cascade") {
  Rig rig;
  rig.init_pics();
  rig.out8(0x21, 0xff & ~(1 << 4) & ~(1 << 2));
  rig.out8(0xa1, 0xff & ~1);
  rig.out8(0x3f9, 2);
  CHECK(take(rig) == 0x24);
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.out8(0x20, 0x0b);
  CHECK(rig.in8(0x20) == 0x10);  // ISR
  // RTC, IRQ 8: its update-ended interrupt. IRQ 2 outranks IRQ 4.
  rig.out8(0x70, 0x0b);
  rig.out8(0x71, 0x12);
  rig.turn_to(1'000'000'000);
  CHECK(take(rig) == 0x28);
  rig.out8(0xa0, 0x20);
  rig.out8(0x20, 0x62);
  rig.out8(0x20, 0x64);
  CHECK(rig.in8(0x20) == 0);
}

TEST_CASE("masking LINT0 keeps the 8259's interrupts from the processor") {
  Rig rig;
  rig.init_pics();
  rig.out8(0x21, 0xef);
  rig.set_apic(0x350, 0x10700);
  rig.out8(0x3f9, 2);
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.set_apic(0x350, 0x700);
  CHECK(take(rig) == 0x24);
}

TEST_CASE("8259: polling takes the highest request; ELCR keeps only bits that may be level") {
  Rig rig;
  rig.init_pics();
  rig.out8(0x21, 0xef);
  rig.out8(0x3f9, 2);
  rig.out8(0x20, 0x0c);
  CHECK(rig.in8(0x20) == 0x84);
  rig.out8(0x20, 0x0c);
  CHECK(rig.in8(0x20) == 0);  // in service: nothing more
  rig.out8(0x4d0, 0xff);
  CHECK(rig.in8(0x4d0) == 0xf8);
  rig.out8(0x4d1, 0xff);
  CHECK(rig.in8(0x4d1) == 0xde);
}
