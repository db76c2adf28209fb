// A driver that breaks every rule of the virtio rings. Input: device, features, queue size, then
// operations; see the table in the loop.
#include "tests/fuzz/devices/checks.h"
#include "tests/unit/devices/virtio_driver.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::test;

namespace {

constexpr uint64_t kBuffers = 0x20'0000;
constexpr unsigned kOperationsMax = 512;

struct Session {
  explicit Session(ByteReader& reader) : in(reader) { restart(); }

  void restart() {
    slot = 1 + in.get<uint8_t>() % 5;
    const auto bits = in.get<uint8_t>();
    features = VirtioPci::kFeatureVersion1 | uint64_t{bits & 3u} << 28 |
               ((bits & 4) != 0 && slot == kSlotNet ? 1u << 15 : 0);
    size = static_cast<uint16_t>(1u << (in.get<uint8_t>() % 7));
    queues = slot == kSlotNet || slot == kSlotConsole ? 2 : 1;
    driver = std::make_unique<VirtioDriver>(*rig.platform, *rig.memory, slot, kRings);
    driver->start(features, queues, size);
  }

  // Mostly inside RAM, sometimes anywhere.
  uint64_t address() {
    const auto value = in.get<uint32_t>();
    return (value & 0x80000000) != 0 ? uint64_t{value} << (value & 31)
                                     : kBuffers + (value & 0x1fffff);
  }
  unsigned queue() { return in.get<uint8_t>() % queues; }

  void descriptor() {
    const unsigned q = queue();
    const auto index = in.get<uint8_t>();
    const bool indirect_table = (index & 0x80) != 0;
    const uint64_t table = indirect_table ? kBuffers : driver->descriptors(q);
    const uint64_t at = address();
    const auto length = in.get<uint8_t>();
    const uint32_t bytes = (length & 0x80) != 0 ? uint32_t{length} << (length & 31) : length * 16u;
    const auto flags = in.get<uint8_t>();
    const auto next = in.get<uint8_t>();
    driver->write_descriptor(table, (index & 0x7f) % (size * 2u), at, bytes, flags & 7, next);
  }

  void answer() {
    if (rig.sink.waiting.empty()) return;
    const size_t which = in.get<uint8_t>() % rig.sink.waiting.size();
    const DiskRequest request = rig.sink.waiting[which];
    rig.sink.waiting.erase(rig.sink.waiting.begin() + static_cast<ptrdiff_t>(which));
    const auto how = in.get<uint8_t>();
    DiskDoneInput done{
        .device = request.device, .request = request.request, .ok = how != 0, .data = {}};
    if (request.op == DiskOp::kRead) done.data.resize(how == 1 ? how : request.length);
    rig.platform->disk_done(done);
  }

  void step() {
    switch (in.get<uint8_t>() % 13) {
      case 0: return descriptor();
      case 1: {
        const unsigned q = queue();
        return driver->publish(q, in.get<uint8_t>());
      }
      case 2: return driver->notify(queue());
      case 3: {
        const auto where = in.get<uint16_t>();
        const uint64_t at = ((where & 0x8000) != 0 ? kBuffers : kRings) + (where & 0x3fff);
        return driver->poke(at, in.get<uint8_t>());
      }
      case 4: return answer();
      case 5: return rig.platform->frame(0, Bytes(in.get<uint16_t>() % 2000, 7));
      case 6: return rig.platform->console_input(1, Bytes(in.get<uint16_t>() % 500, 'k'));
      case 7: {
        const unsigned offset = in.get<uint8_t>() & 0xfc;
        return driver->set_config(offset, in.get<uint32_t>());
      }
      case 8: {
        const uint64_t offset = in.get<uint16_t>() % 0x3800;
        return driver->write(offset, 1u << (in.get<uint8_t>() % 4), in.get<uint32_t>());
      }
      case 9: {
        rig.round_trip();
        driver = std::make_unique<VirtioDriver>(*rig.platform, *rig.memory, slot, kRings);
        return;
      }
      case 10: return restart();
      case 11: {
        const unsigned q = queue();
        return driver->poke(driver->available_ring(q) + 2, in.get<uint16_t>());
      }
      default: driver->read(in.get<uint16_t>() % 0x3ff8, 1u << (in.get<uint8_t>() % 4)); return;
    }
  }

  ByteReader& in;
  FuzzRig rig;
  unsigned slot = 1, queues = 1;
  uint64_t features = 0;
  uint16_t size = 8;
  std::unique_ptr<VirtioDriver> driver;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ByteReader in(ByteSpan(data, size));
  Session session(in);
  for (unsigned i = 0; i < kOperationsMax && !in.at_end(); ++i) {
    session.step();
    while (session.rig.platform->acknowledge_interrupt()) {
    }
  }
  session.rig.round_trip();
  return 0;
}
