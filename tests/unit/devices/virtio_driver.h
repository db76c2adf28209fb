// The least a virtio driver does: finds the device by its PCI slot, negotiates, sets up rings in
// guest memory, adds chains and reads what came back. Tests break its rules on purpose.
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"
#include "hv/core/memory.h"
#include "hv/devices/platform.h"
#include "hv/devices/virtio_pci.h"

namespace us::hv::test {

constexpr uint16_t kDescNext = 1, kDescWrite = 2, kDescIndirect = 4;

struct Piece {
  uint64_t address = 0;
  uint32_t length = 0;
  bool writable = false;
};

class VirtioDriver {
 public:
  VirtioDriver(Platform& platform, GuestMemory& memory, unsigned slot, uint64_t rings)
      : platform_(platform), memory_(memory), slot_(slot), rings_(rings) {
    bar_ = config(0x10) & ~15u;
    msix_bar_ = config(0x14) & ~15u;
  }

  uint32_t config(unsigned offset) {
    platform_.pio_write(0xcf8, 4, 0x8000'0000 | slot_ << 11 | (offset & 0xfc));
    return platform_.pio_read(static_cast<uint16_t>(0xcfc + (offset & 3)), 4);
  }
  void set_config(unsigned offset, uint32_t value, unsigned size = 4) {
    platform_.pio_write(0xcf8, 4, 0x8000'0000 | slot_ << 11 | (offset & 0xfc));
    platform_.pio_write(static_cast<uint16_t>(0xcfc + (offset & 3)), size, value);
  }

  uint64_t read(uint64_t offset, unsigned size) {
    return platform_.mmio_read(GuestPhys(bar_ + offset), size);
  }
  void write(uint64_t offset, unsigned size, uint64_t value) {
    platform_.mmio_write(GuestPhys(bar_ + offset), size, value);
  }
  uint8_t status() { return static_cast<uint8_t>(read(20, 1)); }
  uint64_t features() {
    write(0, 4, 0);
    const uint64_t low = read(4, 4);
    write(0, 4, 1);
    return low | read(4, 4) << 32;
  }

  // Resets the device and brings it to DRIVER_OK with these features and `queues` queues.
  void start(uint64_t features, unsigned queues, uint16_t size) {
    write(20, 1, 0);
    write(20, 1, VirtioPci::kAcknowledge | VirtioPci::kDriver);
    for (unsigned half = 0; half < 2; ++half) {
      write(8, 4, half);
      write(12, 4, static_cast<uint32_t>(features >> (32 * half)));
    }
    write(20, 1, VirtioPci::kAcknowledge | VirtioPci::kDriver | VirtioPci::kFeaturesOk);
    for (unsigned q = 0; q < queues; ++q) setup_queue(q, size);
    write(20, 1, 0xf);
  }
  void setup_queue(unsigned q, uint16_t size) {
    size_ = size;
    Bytes zeros(0x2000, 0);
    memory_.write(GuestPhys(descriptors(q)), zeros);
    next_descriptor_[q] = available_[q] = seen_[q] = 0;
    write(22, 2, q);
    write(24, 2, size);
    write(32, 8, descriptors(q));
    write(40, 8, available_ring(q));
    write(48, 8, used_ring(q));
    write(28, 2, 1);
  }
  // One table entry a queue vector, message `vector` to APIC 0; entry 0 is the configuration's.
  void use_msix(unsigned queues, uint8_t first_vector) {
    for (unsigned i = 0; i <= queues; ++i) {
      const uint64_t entry = msix_bar_ + 16 * i;
      platform_.mmio_write(GuestPhys(entry), 4, 0xfee0'0000);
      platform_.mmio_write(GuestPhys(entry + 8), 4, first_vector + i);
      platform_.mmio_write(GuestPhys(entry + 12), 4, 0);
    }
    set_config(msix_capability(), 0x8000'0000 | (config(msix_capability()) & 0xffff));
    write(16, 2, 0);
    for (unsigned q = 0; q < queues; ++q) {
      write(22, 2, q);
      write(26, 2, q + 1);
    }
  }
  unsigned msix_capability() {
    for (unsigned at = config(0x34) & 0xff; at != 0; at = (config(at) >> 8) & 0xff) {
      if ((config(at) & 0xff) == 0x11) return at;
    }
    US_CHECK(false, "no MSI-X capability");
  }

  // Each queue owns 8 KiB: descriptors, the available ring at 4 KiB, the used ring at 6 KiB.
  uint64_t descriptors(unsigned q) const { return rings_ + 0x2000 * q; }
  uint64_t available_ring(unsigned q) const { return descriptors(q) + 0x1000; }
  uint64_t used_ring(unsigned q) const { return descriptors(q) + 0x1800; }

  template <class T>
  void poke(uint64_t address, T value) {
    uint8_t bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    US_CHECK(memory_.write(GuestPhys(address), bytes));
  }
  template <class T>
  T peek(uint64_t address) const {
    T value{};
    uint8_t bytes[sizeof value];
    US_CHECK(memory_.read(GuestPhys(address), bytes));
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
  void write_descriptor(uint64_t table, unsigned index, uint64_t address, uint32_t length,
                        uint16_t flags, uint16_t next) {
    const uint64_t at = table + 16 * index;
    poke(at, address);
    poke(at + 8, length);
    poke(at + 12, flags);
    poke(at + 14, next);
  }

  // Makes a chain available without telling the device; returns its head.
  uint16_t add(unsigned q, const std::vector<Piece>& pieces) {
    const uint16_t head = next_descriptor_[q];
    for (size_t i = 0; i < pieces.size(); ++i) {
      const bool last = i + 1 == pieces.size();
      const uint16_t index = next_descriptor_[q];
      next_descriptor_[q] = static_cast<uint16_t>((index + 1) % size_);
      const auto flags =
          static_cast<uint16_t>((last ? 0 : kDescNext) | (pieces[i].writable ? kDescWrite : 0));
      write_descriptor(descriptors(q), index, pieces[i].address, pieces[i].length, flags,
                       next_descriptor_[q]);
    }
    publish(q, head);
    return head;
  }
  void publish(unsigned q, uint16_t head) {
    poke(available_ring(q) + 4 + 2 * (available_[q] % size_), head);
    poke(available_ring(q) + 2, ++available_[q]);
  }
  void notify(unsigned q) {
    write(VirtioPci::kNotifyOffset + q * VirtioPci::kNotifyMultiplier, 2, q);
  }

  struct Used {
    uint32_t head = 0;
    uint32_t written = 0;
  };
  // What the device gave back since the last call.
  std::vector<Used> take_used(unsigned q) {
    std::vector<Used> used;
    for (const uint16_t end = used_index(q); seen_[q] != end; ++seen_[q]) {
      const uint64_t at = used_ring(q) + 4 + 8 * (seen_[q] % size_);
      used.push_back({peek<uint32_t>(at), peek<uint32_t>(at + 4)});
    }
    return used;
  }
  uint16_t used_index(unsigned q) const { return peek<uint16_t>(used_ring(q) + 2); }

 private:
  Platform& platform_;
  GuestMemory& memory_;
  const unsigned slot_;
  const uint64_t rings_;
  uint64_t bar_ = 0;
  uint64_t msix_bar_ = 0;
  uint16_t size_ = 8;
  uint16_t next_descriptor_[3] = {};
  uint16_t available_[3] = {};
  uint16_t seen_[3] = {};
};

// Slots of rig.h's everything().
constexpr unsigned kSlotDisk0 = 1, kSlotDisk1 = 2, kSlotNet = 3, kSlotRng = 4, kSlotConsole = 5;
constexpr uint64_t kRings = 0x10'0000;
constexpr uint64_t kData = 0x20'0000;

}  // namespace us::hv::test
