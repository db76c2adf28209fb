// A guest that touches every port, register and MSR in any order, time that leaps, and states that
// nobody saved.
#include "tests/fuzz/devices/checks.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::test;

namespace {

constexpr unsigned kOperationsMax = 1024;
constexpr uint16_t kPorts[] = {0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x4d1, 0x40,  0x41,
                               0x42,  0x43,  0x60,  0x61,  0x64,  0x70,  0x71,  0x80,
                               0x92,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe,
                               0x3ff, 0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x608,
                               0xcf8, 0xcf9, 0xcfc, 0xcfd, 0xcfe, 0xcff, 0xf4,  0x1234};
constexpr uint64_t kBases[] = {kLocalApicBase, kIoApicBase, kPciWindowBase,
                               kPciWindowBase + 0x4000};

void load_anything(FuzzRig& rig, ByteReader& in) {
  // A saved state with some bytes changed.
  ByteWriter saved;
  rig.platform->save(saved);
  Bytes bytes = saved.take();
  for (unsigned i = in.get<uint8_t>() % 16; i > 0; --i) {
    const size_t at = in.get<uint16_t>() % bytes.size();
    bytes[at] = in.get<uint8_t>();
  }
  auto other = std::make_unique<Platform>(everything(), *rig.memory, rig.clock, rig.sink);
  ByteReader changed(bytes);
  if (other->load(changed).ok()) rig.platform = std::move(other);
}

void step(FuzzRig& rig, ByteReader& in) {
  const auto op = in.get<uint8_t>();
  const unsigned size = 1u << ((op >> 4) & 3);
  switch (op & 15) {
    case 0:
    case 1:
    case 2: {
      const uint16_t port = kPorts[in.get<uint8_t>() % std::size(kPorts)];
      rig.platform->pio_write(port, size & 7 ? size : 4, in.get<uint32_t>());
      return;
    }
    case 3: {
      const uint16_t port = kPorts[in.get<uint8_t>() % std::size(kPorts)];
      rig.platform->pio_read(port, size & 7 ? size : 4);
      return;
    }
    case 4:
    case 5:
    case 6: {
      const uint64_t base = kBases[in.get<uint8_t>() % std::size(kBases)];
      const uint64_t offset = in.get<uint16_t>() % 0x3ff8;
      rig.platform->mmio_write(GuestPhys(base + offset), size, in.get<uint32_t>());
      return;
    }
    case 7: {
      const uint64_t base = kBases[in.get<uint8_t>() % std::size(kBases)];
      rig.platform->mmio_read(GuestPhys(base + in.get<uint16_t>()), size);
      return;
    }
    case 8: {
      const uint32_t index = (op & 0x80) != 0 ? 0x6e0 : 0x800 + in.get<uint8_t>() % 0x40u;
      rig.platform->msr_write(index, in.get<uint64_t>());
      return;
    }
    case 9: {
      uint64_t value = 0;
      rig.platform->msr_read(0x800 + in.get<uint8_t>(), value);
      rig.platform->msr_write(0x1b, in.get<uint64_t>());
      return;
    }
    case 10:
    case 11: {
      const unsigned shift = in.get<uint8_t>() % 40;
      rig.clock.ticks += uint64_t{in.get<uint8_t>()} << shift;
      rig.platform->advance(rig.clock.now());
      return;
    }
    case 12: {
      rig.clock.offset = in.get<uint64_t>();
      rig.platform->guest_offset_changed();
      return;
    }
    case 13: return rig.platform->set_task_priority(in.get<uint8_t>() & 15);
    case 14: return load_anything(rig, in);
    default: {
      rig.platform->console_input(0, Bytes(in.get<uint8_t>(), 'x'));
      rig.platform->power_button();
      rig.platform->nmi();
      rig.platform->take_nmi();
      return;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ByteReader in(ByteSpan(data, size));
  FuzzRig rig;
  for (unsigned i = 0; i < kOperationsMax && !in.at_end(); ++i) {
    step(rig, in);
    if ((i & 7) == 0) rig.platform->acknowledge_interrupt();
    (void)rig.platform->next_deadline();
  }
  (void)rig.platform->dump();
  rig.round_trip();
  return 0;
}
