#include <doctest/doctest.h>

#include "tests/unit/devices/rig.h"
#include "tests/unit/devices/virtio_driver.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::test;

TEST_CASE("enumeration finds the host bridge and one function a virtio device, then nothing") {
  Rig rig;
  std::vector<uint32_t> found;
  for (unsigned slot = 0; slot < 32; ++slot) {
    VirtioDriver device(rig.platform, *rig.memory, slot, kRings);
    if (device.config(0) != 0xffffffff) found.push_back(device.config(0));
  }
  CHECK(found == std::vector<uint32_t>{0x00081b36, 0x10421af4, 0x10421af4, 0x10411af4, 0x10441af4,
                                       0x10431af4});
  rig.platform.pio_write(0xcf8, 4, 0x80010000);  // bus 1
  CHECK(rig.platform.pio_read(0xcfc, 4) == 0xffffffff);
  rig.platform.pio_write(0xcf8, 4, 0x80000100);  // function 1
  CHECK(rig.platform.pio_read(0xcfc, 4) == 0xffffffff);
}

TEST_CASE("BARs lie apart inside the window, tell their size, and follow a new address") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
  const uint32_t bar = device.config(0x10);
  CHECK(bar >= kPciWindowBase);
  CHECK(bar + 0x4000 <= device.config(0x14));
  device.set_config(0x10, 0xffffffff);
  CHECK(device.config(0x10) == 0xffffc000);
  device.set_config(0x10, 0xe0000000);
  CHECK(rig.platform.mmio_read(GuestPhys(0xe0000000 + 18), 2) == 1);  // num_queues
  CHECK(rig.platform.mmio_read(GuestPhys(bar + 18), 2) == 0xffff);
  device.set_config(4, 0, 2);  // memory decoding off
  CHECK(rig.platform.mmio_read(GuestPhys(0xe0000000 + 18), 2) == 0xffff);
}

TEST_CASE("configuration bytes and words are read and written in place; IDs are read-only") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotNet, kRings);
  device.set_config(0x3c, 0x5a, 1);
  CHECK((device.config(0x3c) & 0xffff) == 0x015a);
  device.set_config(0, 0);
  CHECK(device.config(0) == 0x10411af4);
  rig.platform.pio_write(0xcf8, 4, 0x80000000 | kSlotNet << 11 | 8);
  CHECK(rig.platform.pio_read(0xcff, 1) == 0x02);  // class: network
  CHECK(rig.platform.pio_read(0xcf8, 4) == (0x80000000 | kSlotNet << 11 | 8));
}

TEST_CASE("virtio capabilities name common, notify, ISR, device and window structures") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
  unsigned types = 0;
  for (unsigned at = device.config(0x34) & 0xff; at != 0; at = (device.config(at) >> 8) & 0xff) {
    if ((device.config(at) & 0xff) == 9) types |= 1u << (device.config(at) >> 24);
  }
  CHECK(types == 0b111110);
}

TEST_CASE("the configuration window reads a BAR without memory decoding") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
  unsigned window = 0;
  for (unsigned at = device.config(0x34) & 0xff; at != 0; at = (device.config(at) >> 8) & 0xff) {
    if ((device.config(at) & 0xff) == 9 && device.config(at) >> 24 == 5) window = at;
  }
  REQUIRE(window != 0);
  device.set_config(window + 4, 0, 1);
  device.set_config(window + 8, 18);
  device.set_config(window + 12, 2);
  CHECK((device.config(window + 16) & 0xffff) == 1);  // num_queues
  device.set_config(window + 8, 20);
  device.set_config(window + 12, 1);
  device.set_config(window + 16, 3);
  CHECK(device.status() == 3);
}

TEST_CASE("an MSI-X message that was masked is pending and leaves when unmasked") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotRng, kRings);
  device.start(VirtioPci::kFeatureVersion1, 1, 8);
  device.use_msix(1, 0x60);
  const uint64_t table = device.config(0x14);
  rig.write32(table + 16 + 12, 1);  // mask vector 1
  device.add(0, {{kData, 16, true}});
  device.notify(0);
  CHECK_FALSE(rig.platform.interrupt_pending());
  CHECK(rig.read32(table + 0x800) == 2);
  rig.write32(table + 16 + 12, 0);
  CHECK(rig.platform.acknowledge_interrupt() == 0x61);
  CHECK(rig.read32(table + 0x800) == 0);
}

TEST_CASE("without MSI-X the INTx line rises at the pin _PRT names and drops by reading ISR") {
  Rig rig;
  const unsigned pin = 16 + kSlotRng % 4;
  rig.set_redirection(pin, 0xa000 | 0x70);
  VirtioDriver device(rig.platform, *rig.memory, kSlotRng, kRings);
  device.start(VirtioPci::kFeatureVersion1, 1, 8);
  device.add(0, {{kData, 16, true}});
  device.notify(0);
  CHECK(rig.platform.acknowledge_interrupt() == 0x70);
  rig.eoi();
  CHECK(rig.platform.interrupt_pending());  // still asserted
  CHECK(rig.platform.acknowledge_interrupt() == 0x70);
  CHECK(device.read(VirtioPci::kIsrOffset, 1) == 1);
  rig.eoi();
  CHECK_FALSE(rig.platform.interrupt_pending());
}
