// A platform with a clock the test turns by hand and a sink that keeps what leaves.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "hv/devices/platform.h"

namespace us::hv::test {

struct HandClock final : TimeSource {
  uint64_t ticks = 0;
  uint64_t offset = 0;
  GuestTsc now() override { return GuestTsc(ticks); }
  uint64_t guest_offset() override { return offset; }
};

struct KeepingSink final : OutputSink {
  std::vector<std::pair<uint8_t, Bytes>> frames;
  std::vector<DiskRequest> disk_requests;
  std::string serial_text, console_text;

  void frame(uint8_t device, Bytes bytes) override {
    frames.emplace_back(device, std::move(bytes));
  }
  void disk(DiskRequest request) override { disk_requests.push_back(std::move(request)); }
  void console(uint8_t device, ByteSpan bytes) override {
    (device == 0 ? serial_text : console_text).append(bytes.begin(), bytes.end());
  }
};

inline PlatformConfig everything() {
  PlatformConfig config;
  config.disks.push_back({.size_bytes = 1 << 20, .read_only = false, .serial = "first"});
  config.disks.push_back({.size_bytes = 1 << 16, .read_only = true, .serial = "second"});
  config.nets.push_back({.mac = {0x52, 0x54, 0, 1, 2, 3}});
  config.debug_exit = true;
  config.apic_hz = kTscHz;  // a count a tick: the numbers in tests stay plain
  for (size_t i = 0; i < config.rng_seed.size(); ++i) config.rng_seed[i] = static_cast<uint8_t>(i);
  return config;
}

struct Rig {
  explicit Rig(PlatformConfig config = everything())
      : memory(std::move(GuestMemory::create(4 << 20).value())),
        platform(config, *memory, clock, sink) {}

  void out8(uint16_t port, uint8_t value) { platform.pio_write(port, 1, value); }
  uint8_t in8(uint16_t port) { return static_cast<uint8_t>(platform.pio_read(port, 1)); }
  uint32_t read32(uint64_t address) {
    return static_cast<uint32_t>(platform.mmio_read(GuestPhys(address), 4));
  }
  void write32(uint64_t address, uint32_t value) {
    platform.mmio_write(GuestPhys(address), 4, value);
  }
  uint32_t apic(uint32_t offset) { return read32(kLocalApicBase + offset); }
  void set_apic(uint32_t offset, uint32_t value) { write32(kLocalApicBase + offset, value); }
  void set_redirection(unsigned pin, uint64_t entry) {
    write32(kIoApicBase, 0x11 + 2 * pin);
    write32(kIoApicBase + 0x10, static_cast<uint32_t>(entry >> 32));
    write32(kIoApicBase, 0x10 + 2 * pin);
    write32(kIoApicBase + 0x10, static_cast<uint32_t>(entry));
  }
  uint64_t redirection(unsigned pin) {
    write32(kIoApicBase, 0x11 + 2 * pin);
    const uint64_t high = read32(kIoApicBase + 0x10);
    write32(kIoApicBase, 0x10 + 2 * pin);
    return high << 32 | read32(kIoApicBase + 0x10);
  }
  // Initialises the 8259 pair as an operating system does: vectors 0x20 and 0x28, all masked.
  void init_pics() {
    for (uint16_t base : {0x20, 0xa0}) {
      out8(base, 0x11);
      out8(static_cast<uint16_t>(base + 1), base == 0x20 ? 0x20 : 0x28);
      out8(static_cast<uint16_t>(base + 1), base == 0x20 ? 4 : 2);
      out8(static_cast<uint16_t>(base + 1), 1);
      out8(static_cast<uint16_t>(base + 1), 0xff);
    }
  }
  void eoi() { set_apic(0xb0, 0); }
  // Turns the clock to `ticks` and fires what is due, as an anchor does.
  void turn_to(uint64_t ticks) {
    clock.ticks = ticks;
    platform.advance(GuestTsc(ticks));
  }
  Bytes state() const {
    ByteWriter out;
    platform.save(out);
    return out.take();
  }
  // A second platform on the same memory, loaded with this one's state.
  std::unique_ptr<Platform> twin(KeepingSink& twin_sink) {
    auto other = std::make_unique<Platform>(everything(), *memory, clock, twin_sink);
    const Bytes bytes = state();
    ByteReader in(bytes);
    US_CHECK(other->load(in).ok());
    return other;
  }

  HandClock clock;
  KeepingSink sink;
  std::unique_ptr<GuestMemory> memory;
  Platform platform;
};

}  // namespace us::hv::test
