#include <doctest/doctest.h>

#include "tests/unit/devices/rig.h"
#include "tests/unit/devices/virtio_driver.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::test;

namespace {

Bytes state_of(const Platform& platform) {
  ByteWriter out;
  platform.save(out);
  return out.take();
}

// A platform in the middle of everything.
struct BusyRig : Rig {
  BusyRig()
      : disk(platform, *memory, kSlotDisk0, kRings),
        net(platform, *memory, kSlotNet, kRings + 0x8000) {
    clock.ticks = 12'345;
    init_pics();
    set_redirection(2, 0x30);
    out8(0x43, 0x34);
    out8(0x40, 0xff);  // half of a count
    set_apic(0x3e0, 0xb);
    set_apic(0x320, 0x200ec);
    set_apic(0x380, 1'000'000);
    set_apic(0x300, 0x40055);  // pending
    out8(0x70, 0x0b);
    out8(0x71, 0x82);  // RTC under SET
    const Bytes typed = {'l', 's', '\n'};
    platform.console_input(0, typed);
    disk.start(VirtioPci::kFeatureVersion1, 1, 64);
    disk.use_msix(1, 0x60);
    disk.poke(kData, uint32_t{0});
    disk.poke(kData + 8, uint64_t{3});
    disk.add(0, {{kData, 16, false}, {kData + 0x1000, 512, true}, {kData + 16, 1, true}});
    disk.notify(0);
    net.start(VirtioPci::kFeatureVersion1 | 1u << 15, 2, 8);
    platform.frame(0, Bytes(200, 5));
    platform.power_button();
  }
  VirtioDriver disk, net;
};

}  // namespace

TEST_CASE("loading gives back the saved bytes, and both go on alike") {
  BusyRig rig;
  REQUIRE(rig.disk.status() == 0xf);
  REQUIRE(rig.platform.disk_requests_in_flight().size() == 1);
  KeepingSink twin_sink;
  const auto twin = rig.twin(twin_sink);
  CHECK(state_of(*twin) == rig.state());
  CHECK(twin->take_attention());
  CHECK(twin->next_deadline() == rig.platform.next_deadline());
  CHECK(twin->disk_requests_in_flight().size() == 1);
  CHECK(twin->disk_requests_in_flight()[0].offset == 3 * 512);
  for (Platform* platform : {&rig.platform, twin.get()}) {
    CHECK(platform->acknowledge_interrupt() == 0x55);
    platform->pio_write(0x40, 1, 0x10);  // the count's other half
  }
  rig.clock.ticks = 50'000'000;
  for (Platform* platform : {&rig.platform, twin.get()}) {
    platform->advance(rig.clock.now());
    platform->disk_done({.device = 0, .request = 0, .ok = true, .data = Bytes(512, 1)});
    CHECK(platform->pio_read(0x3f8, 1) == 'l');
    CHECK(platform->acknowledge_interrupt() == 0xec);
  }
  CHECK(state_of(*twin) == rig.state());
}

TEST_CASE("a moved BAR answers at its new place after loading") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
  device.set_config(0x10, 0xe8000000);
  KeepingSink sink;
  const auto twin = rig.twin(sink);
  CHECK(twin->mmio_read(GuestPhys(0xe8000000 + 18), 2) == 1);
}

TEST_CASE("the state of another configuration is refused with DEV-001") {
  Rig rig;
  const Bytes state = rig.state();
  PlatformConfig other = everything();
  other.disks[0].size_bytes *= 2;
  Rig changed(other);
  ByteReader in(state);
  const Status status = changed.platform.load(in);
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().id == "DEV-001");
}

TEST_CASE("every shortened state is refused, none crashes") {
  BusyRig rig;
  const Bytes state = rig.state();
  for (size_t length = 0; length < state.size(); length += 1 + length / 40) {
    KeepingSink sink;
    Platform other(everything(), *rig.memory, rig.clock, sink);
    ByteReader in(ByteSpan(state).first(length));
    CHECK_FALSE(other.load(in).ok());
  }
}

TEST_CASE("a digest covers what the guest can see and nothing the machine was told") {
  Rig rig;
  ByteWriter before, after, changed;
  rig.platform.digest_state(before);
  (void)rig.platform.take_attention();
  (void)rig.platform.next_deadline();
  rig.platform.digest_state(after);
  CHECK(before.bytes() == after.bytes());
  rig.out8(0x80, 0x12);
  rig.platform.digest_state(changed);
  CHECK(before.bytes() != changed.bytes());
}
