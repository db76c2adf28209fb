// What must hold whatever a guest does: the fuzz targets' sink, and the round trip of the state.
#pragma once

#include "base/check.h"
#include "tests/unit/devices/rig.h"

namespace us::hv::test {

// Refuses outputs that no guest may cause.
struct CheckingSink final : OutputSink {
  std::vector<DiskConfig> disks = everything().disks;
  std::vector<DiskRequest> waiting;

  void frame(uint8_t device, Bytes bytes) override {
    US_CHECK(device == 0 && bytes.size() >= 14 && bytes.size() <= 1518);
  }
  void disk(DiskRequest request) override {
    US_CHECK(request.device < disks.size());
    const DiskConfig& disk = disks[request.device];
    const bool changes = request.op != DiskOp::kRead && request.op != DiskOp::kFlush;
    US_CHECK(!changes || !disk.read_only);
    US_CHECK(request.offset <= disk.size_bytes &&
             request.length <= disk.size_bytes - request.offset);
    US_CHECK((request.op == DiskOp::kWrite ? request.length : 0) == request.data.size());
    waiting.push_back(std::move(request));
  }
  void console(uint8_t device, ByteSpan bytes) override { US_CHECK(device < 2 && !bytes.empty()); }
};

struct FuzzRig {
  FuzzRig()
      : memory(std::move(GuestMemory::create(4 << 20).value())),
        platform(std::make_unique<Platform>(everything(), *memory, clock, sink)) {}

  // Saves, loads into a fresh platform, goes on with that one.
  void round_trip() {
    ByteWriter before, after;
    platform->save(before);
    auto other = std::make_unique<Platform>(everything(), *memory, clock, sink);
    ByteReader in(before.bytes());
    US_CHECK(other->load(in).ok());
    other->save(after);
    US_CHECK(before.bytes() == after.bytes());
    platform = std::move(other);
  }

  HandClock clock;
  CheckingSink sink;
  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<Platform> platform;
};

}  // namespace us::hv::test
