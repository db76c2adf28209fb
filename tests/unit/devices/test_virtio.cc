#include <cstring>
#include <doctest/doctest.h>

#include "tests/unit/devices/rig.h"
#include "tests/unit/devices/virtio_driver.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::test;

namespace {

constexpr uint64_t kV1 = VirtioPci::kFeatureVersion1;
constexpr uint64_t kMergeable = 1u << 15;

struct DiskRig : Rig {
  explicit DiskRig(unsigned slot = kSlotDisk0, uint64_t extra = 0)
      : disk(platform, *memory, slot, kRings) {
    disk.start(kV1 | extra, 1, 64);
  }
  // Header at kData + at, status byte behind it; returns the pieces of a request.
  std::vector<Piece> request(uint32_t type, uint64_t sector, std::vector<Piece> data,
                             uint64_t at = 0) {
    disk.poke(kData + at, type);
    disk.poke(kData + at + 4, uint32_t{0});
    disk.poke(kData + at + 8, sector);
    disk.poke(kData + at + 16, uint8_t{0xee});
    std::vector<Piece> pieces = {{kData + at, 16, false}};
    pieces.insert(pieces.end(), data.begin(), data.end());
    pieces.push_back({kData + at + 16, 1, true});
    return pieces;
  }
  uint8_t status(uint64_t at = 0) { return disk.peek<uint8_t>(kData + at + 16); }
  VirtioDriver disk;
};

}  // namespace

TEST_CASE("negotiation: VERSION_1 is needed, unknown features are refused, reset forgets") {
  Rig rig;
  VirtioDriver device(rig.platform, *rig.memory, kSlotDisk0, kRings);
  CHECK((device.features() & kV1) != 0);
  device.start(0, 1, 8);
  CHECK((device.status() & VirtioPci::kFeaturesOk) == 0);
  device.start(kV1 | 1ull << 40, 1, 8);
  CHECK((device.status() & VirtioPci::kFeaturesOk) == 0);
  device.start(kV1, 1, 8);
  CHECK(device.status() == 0xf);
  device.write(20, 1, 0);
  CHECK(device.status() == 0);
  device.write(22, 2, 0);
  CHECK(device.read(28, 2) == 0);    // queue off
  CHECK(device.read(24, 2) == 256);  // its size is the maximum again
}

TEST_CASE("disk configuration shows capacity, geometry and limits; read-only is offered") {
  Rig rig;
  VirtioDriver first(rig.platform, *rig.memory, kSlotDisk0, kRings);
  CHECK(first.read(VirtioPci::kDeviceOffset, 8) == 2048);
  CHECK(first.read(VirtioPci::kDeviceOffset + 12, 4) == 126);
  CHECK(first.read(VirtioPci::kDeviceOffset + 20, 4) == 512);
  CHECK((first.features() & (1 << 5)) == 0);
  VirtioDriver second(rig.platform, *rig.memory, kSlotDisk1, kRings);
  CHECK((second.features() & (1 << 5)) != 0);
  CHECK((second.features() & (1 << 13)) == 0);
}

TEST_CASE("disk write: data is copied at the notification, the answer comes with the input") {
  DiskRig rig;
  for (unsigned i = 0; i < 1024; ++i) rig.disk.poke(kData + 0x1000 + i, static_cast<uint8_t>(i));
  rig.disk.add(0, rig.request(1, 7, {{kData + 0x1000, 512, false}, {kData + 0x1200, 512, false}}));
  rig.disk.notify(0);
  REQUIRE(rig.sink.disk_requests.size() == 1);
  const DiskRequest& sent = rig.sink.disk_requests[0];
  CHECK(sent.op == DiskOp::kWrite);
  CHECK(sent.offset == 7 * 512);
  CHECK(sent.length == 1024);
  CHECK(sent.data.size() == 1024);
  CHECK(sent.data[513] == 1);
  CHECK(rig.disk.take_used(0).empty());
  CHECK(rig.platform.disk_requests_in_flight().size() == 1);
  rig.platform.disk_done({.device = 0, .request = sent.request, .ok = true, .data = {}});
  const auto used = rig.disk.take_used(0);
  REQUIRE(used.size() == 1);
  CHECK(used[0].written == 1);
  CHECK(rig.status() == 0);
  CHECK(rig.platform.disk_requests_in_flight().empty());
}

TEST_CASE("disk reads answered out of order reach their own buffers") {
  DiskRig rig;
  rig.disk.add(0, rig.request(0, 0, {{kData + 0x1000, 512, true}}, 0));
  rig.disk.add(0, rig.request(0, 4, {{kData + 0x2000, 512, true}}, 0x40));
  rig.disk.notify(0);
  REQUIRE(rig.sink.disk_requests.size() == 2);
  const uint32_t first = rig.sink.disk_requests[0].request;
  const uint32_t second = rig.sink.disk_requests[1].request;
  rig.platform.disk_done({.device = 0, .request = second, .ok = true, .data = Bytes(512, 0x22)});
  rig.platform.disk_done({.device = 0, .request = first, .ok = true, .data = Bytes(512, 0x11)});
  CHECK(rig.disk.peek<uint8_t>(kData + 0x1000) == 0x11);
  CHECK(rig.disk.peek<uint8_t>(kData + 0x21ff) == 0x22);
  const auto used = rig.disk.take_used(0);
  REQUIRE(used.size() == 2);
  CHECK(used[0].head == 3);
  CHECK(used[0].written == 513);
  CHECK(used[1].head == 0);
}

TEST_CASE("disk errors: out of range, half sectors, failed or short answers give IOERR") {
  DiskRig rig;
  rig.disk.add(0, rig.request(0, 2048, {{kData + 0x1000, 512, true}}));
  rig.disk.notify(0);
  CHECK(rig.status() == 1);
  rig.disk.add(0, rig.request(0, ~0ull, {{kData + 0x1000, 512, true}}));
  rig.disk.notify(0);
  CHECK(rig.status() == 1);
  rig.disk.add(0, rig.request(1, 0, {{kData + 0x1000, 100, false}}));
  rig.disk.notify(0);
  CHECK(rig.status() == 1);
  CHECK(rig.sink.disk_requests.empty());
  for (const bool ok : {true, false}) {
    rig.disk.add(0, rig.request(0, 0, {{kData + 0x1000, 512, true}}));
    rig.disk.notify(0);
    const uint32_t id = rig.sink.disk_requests.back().request;
    rig.platform.disk_done({.device = 0, .request = id, .ok = ok, .data = Bytes(ok ? 10 : 512)});
    CHECK(rig.status() == 1);
  }
  rig.disk.add(0, rig.request(77, 0, {}));
  rig.disk.notify(0);
  CHECK(rig.status() == 2);
}

TEST_CASE("disk: identity, flush, discard and write zeroes") {
  DiskRig rig;
  rig.disk.add(0, rig.request(8, 0, {{kData + 0x1000, 20, true}}));
  rig.disk.notify(0);
  CHECK(rig.status() == 0);
  CHECK(rig.disk.peek<uint32_t>(kData + 0x1000) == 0x73726966);  // "firs"
  rig.disk.add(0, rig.request(4, 0, {}));
  rig.disk.notify(0);
  CHECK(rig.sink.disk_requests.back().op == DiskOp::kFlush);
  rig.disk.poke(kData + 0x1000, uint64_t{8});
  rig.disk.poke(kData + 0x1008, uint32_t{16});
  rig.disk.poke(kData + 0x100c, uint32_t{0});
  rig.disk.add(0, rig.request(11, 0, {{kData + 0x1000, 16, false}}));
  rig.disk.notify(0);
  CHECK(rig.sink.disk_requests.back().op == DiskOp::kDiscard);
  CHECK(rig.sink.disk_requests.back().offset == 4096);
  CHECK(rig.sink.disk_requests.back().length == 8192);
  rig.disk.poke(kData + 0x100c, uint32_t{1});  // unmap: for write zeroes only
  rig.disk.add(0, rig.request(11, 0, {{kData + 0x1000, 16, false}}, 0x80));
  rig.disk.notify(0);
  CHECK(rig.status(0x80) == 2);
  rig.disk.add(0, rig.request(13, 0, {{kData + 0x1000, 16, false}}, 0xc0));
  rig.disk.notify(0);
  CHECK(rig.sink.disk_requests.back().op == DiskOp::kWriteZeroes);
  CHECK(rig.sink.disk_requests.size() == 3);
}

TEST_CASE("a read-only disk refuses writes without asking the world") {
  DiskRig rig(kSlotDisk1);
  rig.disk.add(0, rig.request(1, 0, {{kData + 0x1000, 512, false}}));
  rig.disk.notify(0);
  CHECK(rig.status() == 1);
  CHECK(rig.sink.disk_requests.empty());
}

TEST_CASE("answers to requests from before a reset touch nothing") {
  DiskRig rig;
  rig.disk.add(0, rig.request(0, 0, {{kData + 0x1000, 512, true}}));
  rig.disk.notify(0);
  const uint32_t id = rig.sink.disk_requests[0].request;
  rig.disk.start(kV1, 1, 64);
  CHECK(rig.platform.disk_requests_in_flight().size() == 1);  // the world still owes it
  rig.platform.disk_done({.device = 0, .request = id, .ok = true, .data = Bytes(512, 9)});
  CHECK(rig.disk.peek<uint8_t>(kData + 0x1000) == 0);
  CHECK(rig.disk.used_index(0) == 0);
  CHECK(rig.platform.disk_requests_in_flight().empty());
  rig.platform.disk_done({.device = 0, .request = 99, .ok = true, .data = {}});
  rig.platform.disk_done({.device = 9, .request = 0, .ok = true, .data = {}});
  CHECK(rig.disk.used_index(0) == 0);
}

TEST_CASE("a queue pauses at 64 MiB under way and goes on as answers come") {
  DiskRig rig;
  // 2 MiB requests would need a larger disk: the same 512 KiB buffer many times is enough.
  rig.disk.start(kV1, 1, 256);
  unsigned added = 0;
  for (; added < 80; ++added)
    rig.disk.add(0, {{kData, 16, false}, {kData + 0x10000, 0xf0000, true}, {kData + 16, 1, true}});
  rig.request(0, 0, {});
  rig.disk.notify(0);
  const size_t first = rig.sink.disk_requests.size();
  CHECK(first == 69);  // the first at or past 64 MiB is the last taken
  rig.platform.disk_done({.device = 0, .request = 0, .ok = false, .data = {}});
  CHECK(rig.sink.disk_requests.size() == first + 1);
}

TEST_CASE("indirect descriptors and event indices work together") {
  DiskRig rig(kSlotDisk0, VirtioPci::kFeatureIndirect | VirtioPci::kFeatureEventIndex);
  rig.disk.use_msix(1, 0x60);
  const uint64_t table = kData + 0x8000;
  rig.request(4, 0, {});
  rig.disk.write_descriptor(table, 0, kData, 16, kDescNext, 1);
  rig.disk.write_descriptor(table, 1, kData + 16, 1, kDescWrite, 0);
  rig.disk.write_descriptor(rig.disk.descriptors(0), 0, table, 32, kDescIndirect, 0);
  rig.disk.poke(rig.disk.available_ring(0) + 4 + 2 * 64, uint16_t{1});  // used_event: the second
  for (unsigned i = 0; i < 2; ++i) {
    rig.disk.publish(0, 0);
    rig.disk.notify(0);
    CHECK(rig.disk.peek<uint16_t>(rig.disk.used_ring(0) + 4 + 8 * 64) == i + 1);  // avail_event
    rig.platform.disk_done({.device = 0, .request = i, .ok = true, .data = {}});
    CHECK(rig.platform.interrupt_pending() == (i == 1));
  }
}

TEST_CASE("net transmit: the frame after the header leaves; runts and giants are dropped") {
  Rig rig;
  VirtioDriver net(rig.platform, *rig.memory, kSlotNet, kRings);
  net.start(kV1, 2, 8);
  net.poke(kData + 12, uint32_t{0xddccbbaa});
  net.add(1, {{kData, 12, false}, {kData + 12, 60, false}});
  net.add(1, {{kData, 12 + 5, false}});
  net.add(1, {{kData, 12 + 9000, false}});
  net.notify(1);
  REQUIRE(rig.sink.frames.size() == 1);
  CHECK(rig.sink.frames[0].second.size() == 60);
  CHECK(rig.sink.frames[0].second[0] == 0xaa);
  CHECK(net.take_used(1).size() == 3);
  CHECK(rig.platform.counters().frames_dropped == 2);
}

TEST_CASE("net receive: waits for buffers, merges small ones, the FIFO is bounded") {
  Rig rig;
  VirtioDriver net(rig.platform, *rig.memory, kSlotNet, kRings);
  rig.platform.frame(0, Bytes(60));  // no driver yet
  CHECK(rig.platform.counters().frames_dropped == 1);
  net.start(kV1 | kMergeable, 2, 8);
  Bytes frame(1000);
  for (size_t i = 0; i < frame.size(); ++i) frame[i] = static_cast<uint8_t>(i * 7);
  rig.platform.frame(0, frame);
  net.add(0, {{kData, 512, true}});
  net.notify(0);
  CHECK(net.used_index(0) == 0);  // one buffer is not enough
  net.add(0, {{kData + 512, 256, true}, {kData + 768, 512, true}});
  net.notify(0);
  const auto used = net.take_used(0);
  REQUIRE(used.size() == 2);
  CHECK(used[0].written == 512);
  CHECK(used[1].written == 500);
  CHECK(net.peek<uint16_t>(kData + 10) == 2);
  Bytes got(1000);
  REQUIRE(rig.memory->read(GuestPhys(kData + 12), got));
  CHECK(got == frame);
  for (int i = 0; i < 300; ++i) rig.platform.frame(0, Bytes(64));
  CHECK(rig.platform.counters().frames_dropped == 1 + 300 - 256);
}

TEST_CASE("net receive without mergeable buffers: a frame too large for its buffer is dropped") {
  Rig rig;
  VirtioDriver net(rig.platform, *rig.memory, kSlotNet, kRings);
  net.start(kV1, 2, 8);
  net.add(0, {{kData, 100, true}});
  rig.platform.frame(0, Bytes(200));
  rig.platform.frame(0, Bytes(60));
  const auto used = net.take_used(0);
  REQUIRE(used.size() == 1);
  CHECK(used[0].written == 72);
  CHECK(rig.platform.counters().frames_dropped == 1);
}

TEST_CASE("rng: bytes are a function of the seed and the order of requests only") {
  const auto draw = [](uint8_t seed) {
    PlatformConfig config = everything();
    config.rng_seed[0] = seed;
    Rig rig(config);
    VirtioDriver rng(rig.platform, *rig.memory, kSlotRng, kRings);
    rng.start(kV1, 1, 8);
    rng.add(0, {{kData, 100, true}});
    rng.add(0, {{kData + 100, 28, true}});
    rng.notify(0);
    Bytes bytes(128);
    REQUIRE(rig.memory->read(GuestPhys(kData), bytes));
    return bytes;
  };
  CHECK(draw(1) == draw(1));
  CHECK(draw(1) != draw(2));
  CHECK(draw(1) != Bytes(128));
  // RFC 8439 2.3.2 uses the same construction; seed 00 01 02 ... is its key, block 0 here.
  const Bytes first = draw(0);
  CHECK(first[0] != first[64]);
}

TEST_CASE("virtio console: writes leave, input waits for buffers") {
  Rig rig;
  VirtioDriver console(rig.platform, *rig.memory, kSlotConsole, kRings);
  console.start(kV1, 2, 8);
  console.poke(kData, uint32_t{0x21696821});
  console.add(1, {{kData + 1, 3, false}});
  console.notify(1);
  CHECK(rig.sink.console_text == "hi!");
  const Bytes typed = {'a', 'b', 'c'};
  rig.platform.console_input(1, typed);
  console.add(0, {{kData + 0x100, 2, true}});
  console.notify(0);
  console.add(0, {{kData + 0x110, 64, true}});
  console.notify(0);
  const auto used = console.take_used(0);
  REQUIRE(used.size() == 2);
  CHECK(used[0].written == 2);
  CHECK(used[1].written == 1);
  CHECK(console.peek<uint8_t>(kData + 0x110) == 'c');
}
