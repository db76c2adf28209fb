#include <doctest/doctest.h>
#include <functional>
#include <string>

#include "tests/unit/devices/rig.h"
#include "tests/unit/devices/virtio_driver.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::test;

namespace {

constexpr uint64_t kAll = VirtioPci::kFeatureVersion1 | VirtioPci::kFeatureIndirect;

struct Attack {
  std::string name;
  std::function<void(VirtioDriver&)> prepare;
};

// Every one of these rings must fail the device, whatever its type.
std::vector<Attack> attacks() {
  const auto publish = [](VirtioDriver& d) { d.publish(0, 0); };
  const auto first = [](VirtioDriver& d, uint64_t address, uint32_t length, uint16_t flags,
                        uint16_t next) {
    d.write_descriptor(d.descriptors(0), 0, address, length, flags, next);
  };
  const auto indirect = [=](uint64_t table, uint32_t length) {
    return [=](VirtioDriver& d) {
      first(d, table, length, kDescIndirect, 0);
      publish(d);
    };
  };
  return {
      {"a descriptor that is its own next one",
       [=](VirtioDriver& d) { first(d, kData, 16, kDescNext, 0), publish(d); }},
      {"a loop of two descriptors",
       [=](VirtioDriver& d) {
         first(d, kData, 16, kDescNext, 1);
         d.write_descriptor(d.descriptors(0), 1, kData, 16, kDescNext, 0);
         publish(d);
       }},
      {"a next one outside the table",
       [=](VirtioDriver& d) { first(d, kData, 16, kDescNext, 8), publish(d); }},
      {"a head outside the table", [](VirtioDriver& d) { d.publish(0, 8); }},
      {"an available index far ahead",
       [](VirtioDriver& d) { d.poke(d.available_ring(0) + 2, uint16_t{9}); }},
      {"a buffer outside memory",
       [=](VirtioDriver& d) { first(d, 0x7fff'ffff'0000, 16, 0, 0), publish(d); }},
      {"a buffer that ends outside memory",
       [=](VirtioDriver& d) { first(d, (4 << 20) - 8, 16, 0, 0), publish(d); }},
      {"a buffer that wraps around the address space",
       [=](VirtioDriver& d) { first(d, ~0ull - 4, 16, kDescWrite, 0), publish(d); }},
      {"a buffer of 4 GiB", [=](VirtioDriver& d) { first(d, kData, ~0u, 0, 0), publish(d); }},
      {"a readable descriptor after a writable one",
       [=](VirtioDriver& d) {
         first(d, kData, 16, kDescNext | kDescWrite, 1);
         d.write_descriptor(d.descriptors(0), 1, kData, 16, 0, 0);
         publish(d);
       }},
      {"an empty indirect table", indirect(kData, 0)},
      {"an indirect table of half an entry", indirect(kData, 24)},
      {"an indirect table longer than the queue", indirect(kData, 16 * 9)},
      {"an indirect table outside memory", indirect(0x1000'0000, 16)},
      {"an indirect table with a next one",
       [=](VirtioDriver& d) { first(d, kData, 16, kDescIndirect | kDescNext, 1), publish(d); }},
      {"an indirect table inside an indirect table",
       [=](VirtioDriver& d) {
         d.write_descriptor(kData, 0, kData + 64, 16, kDescIndirect, 0);
         first(d, kData, 16, kDescIndirect, 0);
         publish(d);
       }},
      {"a loop inside an indirect table",
       [=](VirtioDriver& d) {
         d.write_descriptor(kData, 0, kData + 64, 16, kDescNext, 0);
         first(d, kData, 16, kDescIndirect, 0);
         publish(d);
       }},
  };
}

}  // namespace

TEST_CASE("every hostile ring fails the device with a reason, and a reset mends it") {
  for (const unsigned slot : {kSlotDisk0, kSlotRng}) {
    for (const Attack& attack : attacks()) {
      CAPTURE(slot);
      CAPTURE(attack.name);
      Rig rig;
      VirtioDriver device(rig.platform, *rig.memory, slot, kRings);
      device.start(kAll, 1, 8);
      attack.prepare(device);
      device.notify(0);
      CHECK((device.status() & VirtioPci::kNeedsReset) != 0);
      CHECK(device.used_index(0) == 0);
      CHECK(rig.platform.counters().failed_devices == 1);
      device.notify(0);  // dead until reset
      CHECK(device.used_index(0) == 0);
      device.start(kAll, 1, 8);
      CHECK(device.status() == 0xf);
      CHECK(rig.platform.counters().failed_devices == 0);
    }
  }
}

TEST_CASE("a failing device tells the driver by the configuration interrupt") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
  device.start(kAll, 1, 8);
  device.use_msix(1, 0x60);
  device.publish(0, 99);
  device.notify(0);
  CHECK(rig.platform.acknowledge_interrupt() == 0x60);
  CHECK(rig.platform.dump().find("failed: available ring names") != std::string::npos);
}

TEST_CASE("indirect descriptors without the feature fail the device") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
  device.start(VirtioPci::kFeatureVersion1, 1, 8);
  device.write_descriptor(device.descriptors(0), 0, kData, 16, kDescIndirect, 0);
  device.publish(0, 0);
  device.notify(0);
  CHECK((device.status() & VirtioPci::kNeedsReset) != 0);
}

TEST_CASE("rings outside memory, misaligned or of a bad size fail when enabled") {
  struct Bad {
    uint64_t descriptors, available, used;
    uint16_t size;
  };
  for (const Bad& bad :
       {Bad{0x10'0008, kRings + 0x1000, kRings + 0x1800, 8},
        Bad{kRings, kRings + 0x1001, kRings + 0x1800, 8},
        Bad{kRings, kRings + 0x1000, kRings + 0x1802, 8},
        Bad{(4 << 20) - 64, kRings, kRings + 0x1800, 8},
        Bad{kRings, 1ull << 40, kRings + 0x1800, 8}, Bad{kRings, kRings + 0x1000, ~0ull & ~3ull, 8},
        Bad{kRings, kRings + 0x1000, kRings + 0x1800, 7},
        Bad{kRings, kRings + 0x1000, kRings + 0x1800, 512},
        Bad{kRings, kRings + 0x1000, kRings + 0x1800, 0}}) {
    CAPTURE(bad.descriptors);
    CAPTURE(bad.size);
    Rig rig;
    VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
    device.start(kAll, 0, 8);
    device.write(24, 2, bad.size);
    device.write(32, 8, bad.descriptors);
    device.write(40, 8, bad.available);
    device.write(48, 8, bad.used);
    device.write(28, 2, 1);
    CHECK((device.status() & VirtioPci::kNeedsReset) != 0);
    device.notify(0);
  }
}

TEST_CASE("disk requests without header or status byte fail the device") {
  for (const std::vector<Piece>& pieces : {std::vector<Piece>{{kData, 16, false}},
                                           std::vector<Piece>{{kData, 8, false}, {kData, 1, true}},
                                           std::vector<Piece>{{kData, 64, true}}}) {
    Rig rig;
    VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
    device.start(kAll, 1, 8);
    device.add(0, pieces);
    device.notify(0);
    CHECK((device.status() & VirtioPci::kNeedsReset) != 0);
  }
}

TEST_CASE("receive buffers that cannot be written and headerless sends fail the card") {
  Rig rig;
  VirtioDriver net(rig.platform, *rig.memory, kSlotNet, kRings);
  net.start(kAll, 2, 8);
  net.add(0, {{kData, 2000, false}});
  rig.platform.frame(0, Bytes(60));
  CHECK((net.status() & VirtioPci::kNeedsReset) != 0);
  net.start(kAll, 2, 8);
  net.add(1, {{kData, 4, false}});
  net.notify(1);
  CHECK((net.status() & VirtioPci::kNeedsReset) != 0);
}
