#include <doctest/doctest.h>

#include "tests/unit/devices/rig.h"

using namespace us;
using namespace us::hv;
using us::hv::test::Rig;

namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kSecond = 1'000 * kMs;
constexpr uint32_t kMsrTscDeadline = 0x6e0;

uint8_t rtc(Rig& rig, uint8_t index) {
  rig.out8(0x70, index);
  return rig.in8(0x71);
}
void set_rtc(Rig& rig, uint8_t index, uint8_t value) {
  rig.out8(0x70, index);
  rig.out8(0x71, value);
}

}  // namespace

TEST_CASE("APIC timer, one shot: counts down, fires at its deadline, once") {
  Rig rig;
  rig.set_apic(0x3e0, 0xb);   // divide by 1
  rig.set_apic(0x320, 0xec);  // one shot
  rig.set_apic(0x380, 1000);
  CHECK(rig.platform.next_deadline() == GuestTsc(1000));
  rig.clock.ticks = 400;
  CHECK(rig.apic(0x390) == 600);
  rig.turn_to(999);
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.turn_to(1000);
  CHECK(rig.platform.acknowledge_interrupt() == 0xec);
  CHECK(rig.apic(0x390) == 0);
  CHECK_FALSE(rig.platform.next_deadline().has_value());
}

TEST_CASE("APIC timer: counts the crystal of 25 MHz unless told otherwise") {
  Rig rig{PlatformConfig{}};
  rig.set_apic(0x3e0, 0xb);
  rig.set_apic(0x320, 0xec);
  rig.set_apic(0x380, 1000);
  CHECK(rig.platform.next_deadline() == GuestTsc(1000 * (kTscHz / kCrystalHz)));
  rig.clock.ticks = 4000;
  CHECK(rig.apic(0x390) == 900);
}

TEST_CASE("APIC timer, periodic: fires every period, several missed ones give one interrupt") {
  Rig rig;
  rig.set_apic(0x3e0, 0x3);  // divide by 16
  rig.set_apic(0x320, 0x200ec);
  rig.set_apic(0x380, 100);
  rig.turn_to(1600);
  CHECK(rig.platform.acknowledge_interrupt() == 0xec);
  rig.eoi();
  CHECK(rig.platform.next_deadline() == GuestTsc(3200));
  rig.turn_to(8000 + 160);
  CHECK(rig.platform.acknowledge_interrupt() == 0xec);
  rig.eoi();
  CHECK_FALSE(rig.platform.interrupt_pending());
  CHECK(rig.platform.next_deadline() == GuestTsc(9600));
  CHECK(rig.apic(0x390) == 90);
}

TEST_CASE("APIC timer: going from periodic to one shot lets the count run out") {
  Rig rig;
  rig.set_apic(0x3e0, 0xb);
  rig.set_apic(0x320, 0x200ec);
  rig.set_apic(0x380, 1000);
  rig.clock.ticks = 300;
  rig.set_apic(0x320, 0xec);
  CHECK(rig.apic(0x390) == 700);
  rig.turn_to(1000);
  CHECK(rig.platform.acknowledge_interrupt() == 0xec);
  rig.eoi();
  rig.turn_to(5000);
  CHECK_FALSE(rig.platform.interrupt_pending());
}

TEST_CASE("APIC timer: going from one shot to periodic keeps the count and then wraps") {
  Rig rig;
  rig.set_apic(0x3e0, 0xb);
  rig.set_apic(0x320, 0xec);
  rig.set_apic(0x380, 1000);
  rig.clock.ticks = 600;
  rig.set_apic(0x320, 0x200ec);
  CHECK(rig.apic(0x390) == 400);
  CHECK(rig.apic(0x380) == 1000);
  rig.clock.ticks = 1100;  // a read alone sees the wrap and the interrupt
  CHECK(rig.apic(0x390) == 900);
  CHECK(rig.platform.acknowledge_interrupt() == 0xec);
  rig.turn_to(2500);
  rig.set_apic(0x320, 0xec);
  rig.clock.ticks = 3100;
  CHECK(rig.apic(0x390) == 0);
  rig.set_apic(0x320, 0x200ec);
  CHECK(rig.apic(0x390) == 0);  // stopped until the next initial count
}

TEST_CASE("APIC timer: a new divider goes on from the count it finds") {
  Rig rig;
  rig.set_apic(0x3e0, 0xb);  // 1
  rig.set_apic(0x320, 0xec);
  rig.set_apic(0x380, 1000);
  rig.clock.ticks = 500;
  rig.set_apic(0x3e0, 0x0);  // 2
  CHECK(rig.platform.next_deadline() == GuestTsc(1500));
  rig.clock.ticks = 700;
  CHECK(rig.apic(0x390) == 400);
}

TEST_CASE("TSC deadline: in guest TSC, in the past fires at once, moves with the guest's offset") {
  Rig rig;
  rig.clock.ticks = 1000;
  rig.clock.offset = 1'000'000;
  rig.set_apic(0x320, 0x400ec);
  CHECK(rig.platform.msr_write(kMsrTscDeadline, 1'003'000));
  CHECK(rig.platform.next_deadline() == GuestTsc(3000));
  rig.clock.offset = 0;
  rig.platform.guest_offset_changed();
  CHECK(rig.platform.next_deadline() == GuestTsc(1'003'000));
  CHECK(rig.platform.msr_write(kMsrTscDeadline, 500));
  CHECK(rig.platform.acknowledge_interrupt() == 0xec);
  uint64_t value = 1;
  CHECK(rig.platform.msr_read(kMsrTscDeadline, value));
  CHECK(value == 0);
  rig.set_apic(0x380, 77);
  CHECK(rig.apic(0x390) == 0);  // the count is ignored in this mode
}

TEST_CASE("a timer set to an earlier deadline than last reported asks for attention") {
  Rig rig;
  rig.set_apic(0x3e0, 0xb);
  rig.set_apic(0x320, 0xec);
  rig.set_apic(0x380, 10'000);
  (void)rig.platform.next_deadline();
  (void)rig.platform.take_attention();
  rig.set_apic(0x380, 20'000);
  CHECK_FALSE(rig.platform.take_attention());
  rig.set_apic(0x380, 5'000);
  CHECK(rig.platform.take_attention());
}

TEST_CASE("PIT channel 0 in mode 2 at 100 Hz interrupts at I/O APIC pin 2 every 10 ms") {
  Rig rig;
  rig.set_redirection(2, 0x30);
  rig.out8(0x43, 0x34);
  rig.out8(0x40, 11932 & 0xff);
  rig.out8(0x40, 11932 >> 8);
  int ticks = 0;
  for (uint64_t at = 0; at <= 1000 * kMs; at += kMs) {
    rig.turn_to(at);
    if (!rig.platform.interrupt_pending()) continue;
    CHECK(rig.platform.acknowledge_interrupt() == 0x30);
    rig.eoi();
    ++ticks;
  }
  // 11932 clocks are a little more than 10 ms: 99 periods. Programming mode 2 raises the output,
  // which was low in mode 0: one edge more.
  CHECK(ticks == 100);
}

TEST_CASE("PIT channel 2: latch, read-back and port 0x61 agree with the clock") {
  Rig rig;
  rig.out8(0x61, 1);     // gate of channel 2
  rig.out8(0x43, 0xb0);  // channel 2, both bytes, mode 0
  rig.out8(0x42, 0x00);
  rig.out8(0x42, 0x10);  // 4096 clocks, 3.43 ms
  CHECK((rig.in8(0x61) & 0x20) == 0);
  rig.clock.ticks = kMs;  // 1193 clocks
  rig.out8(0x43, 0x80);
  rig.clock.ticks = 2 * kMs;  // the latch stays
  const int low = rig.in8(0x42), high = rig.in8(0x42);
  CHECK((high << 8 | low) == 4096 - 1193);
  rig.out8(0x43, 0xe8);  // read-back of channel 2: status
  CHECK(rig.in8(0x42) == 0x30);
  rig.clock.ticks = 4 * kMs;
  CHECK((rig.in8(0x61) & 0x20) != 0);
  rig.out8(0x43, 0xe8);
  CHECK(rig.in8(0x42) == 0xb0);  // output high
}

TEST_CASE("PIT channel 2 in mode 0 stands still while its gate is low") {
  Rig rig;
  rig.out8(0x61, 1);
  rig.out8(0x43, 0xb0);
  rig.out8(0x42, 0x00);
  rig.out8(0x42, 0x10);
  rig.clock.ticks = kMs;
  rig.out8(0x61, 0);
  rig.clock.ticks = 100 * kMs;
  CHECK((rig.in8(0x61) & 0x20) == 0);
  rig.out8(0x61, 1);
  rig.clock.ticks = 102 * kMs;
  CHECK((rig.in8(0x61) & 0x20) == 0);
  rig.clock.ticks = 103 * kMs;
  CHECK((rig.in8(0x61) & 0x20) != 0);
}

TEST_CASE("RTC shows the configured start plus the guest's clock in BCD, century included") {
  PlatformConfig config;
  config.wall_clock_start = 951'782'399;  // 2000-02-28 23:59:59 UTC, a Monday
  Rig rig(config);
  CHECK(rtc(rig, 0) == 0x59);
  CHECK(rtc(rig, 4) == 0x23);
  CHECK(rtc(rig, 7) == 0x28);
  rig.clock.ticks = kSecond;
  CHECK(rtc(rig, 0) == 0x00);
  CHECK(rtc(rig, 7) == 0x29);  // a leap year
  CHECK(rtc(rig, 8) == 0x02);
  CHECK(rtc(rig, 9) == 0x00);
  CHECK(rtc(rig, 0x32) == 0x20);
  CHECK(rtc(rig, 6) == 3);  // Tuesday
}

TEST_CASE("RTC: UIP stands for the last 244 us of a second, never under SET") {
  Rig rig;
  rig.clock.ticks = kSecond - 300'000;
  CHECK((rtc(rig, 0xa) & 0x80) == 0);
  rig.clock.ticks = kSecond - 100'000;
  CHECK((rtc(rig, 0xa) & 0x80) != 0);
  set_rtc(rig, 0xb, 0x82);
  CHECK((rtc(rig, 0xa) & 0x80) == 0);
}

TEST_CASE("RTC keeps a time written under SET, in 12-hour binary too") {
  Rig rig;
  set_rtc(rig, 0xb, 0x84);  // SET, binary, 12 hours
  for (const auto& [index, value] : {std::pair<uint8_t, uint8_t>{0, 30},
                                     {2, 59},
                                     {4, 0x8b},
                                     {7, 31},
                                     {8, 12},
                                     {9, 24},
                                     {0x32, 20}})
    set_rtc(rig, index, value);  // 2024-12-31 23:59:30
  rig.clock.ticks = 5 * kSecond;
  CHECK(rtc(rig, 0) == 30);  // stands
  set_rtc(rig, 0xb, 0x04);
  rig.clock.ticks = 35 * kSecond;
  CHECK(rtc(rig, 0) == 0);
  CHECK(rtc(rig, 4) == 12);  // midnight is 12 AM
  CHECK(rtc(rig, 7) == 1);
  CHECK(rtc(rig, 8) == 1);
  CHECK(rtc(rig, 9) == 25);
}

TEST_CASE("RTC alarm fires at its second and its flag clears by reading C") {
  Rig rig;
  rig.set_redirection(8, 0x38);
  const uint8_t minute = rtc(rig, 2);  // 2023-11-14 22:13:20
  REQUIRE(minute == 0x13);
  set_rtc(rig, 1, 0x00);
  set_rtc(rig, 3, 0x15);
  set_rtc(rig, 5, 0xff);    // any hour
  set_rtc(rig, 0xb, 0x22);  // alarm, 24 hours
  CHECK(rig.platform.next_deadline() == GuestTsc(100 * kSecond));
  rig.turn_to(100 * kSecond);
  CHECK(rig.platform.acknowledge_interrupt() == 0x38);
  CHECK((rtc(rig, 0xc) & 0xb0) == 0xb0);
  CHECK(rtc(rig, 0xc) == 0);
  CHECK(rig.platform.next_deadline() == GuestTsc(3700 * kSecond));
}

TEST_CASE("RTC periodic interrupt comes at its rate as long as C is read") {
  Rig rig;
  rig.set_redirection(8, 0x38);
  set_rtc(rig, 0xa, 0x26);  // 1024 Hz
  set_rtc(rig, 0xb, 0x42);
  int fired = 0;
  while (rig.clock.ticks < kSecond) {
    const auto deadline = rig.platform.next_deadline();
    REQUIRE(deadline.has_value());
    rig.turn_to(deadline->value);
    REQUIRE(rig.platform.acknowledge_interrupt() == 0x38);
    CHECK(rtc(rig, 0xc) >= 0xc0);
    rig.eoi();
    ++fired;
  }
  CHECK(fired == 1024);
}

TEST_CASE("an alarm no clock can show has no deadline") {
  Rig rig;
  set_rtc(rig, 1, 0x75);
  set_rtc(rig, 0xb, 0x22);
  CHECK_FALSE(rig.platform.next_deadline().has_value());
}

TEST_CASE("the ACPI PM timer counts 3579545 a second and interrupts when its top bit changes") {
  Rig rig;
  rig.clock.ticks = kSecond;
  CHECK(rig.platform.pio_read(kPortPmTimer, 4) == 3'579'545);
  rig.set_redirection(9, 0x8039);
  rig.platform.pio_write(kPortPm1Event + 2, 2, 1);
  const auto deadline = rig.platform.next_deadline();
  REQUIRE(deadline.has_value());
  rig.turn_to(deadline->value - 1);
  CHECK_FALSE(rig.platform.interrupt_pending());
  rig.turn_to(deadline->value);
  CHECK(rig.platform.pio_read(kPortPmTimer, 4) == 0x8000'0000);
  CHECK(rig.platform.acknowledge_interrupt() == 0x39);
  CHECK((rig.platform.pio_read(kPortPm1Event, 2) & 1) == 1);
}
