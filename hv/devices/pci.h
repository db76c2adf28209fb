// PCI bus 0: configuration mechanism #1, functions with memory BARs, MSI-X.
// Source: PCI Local Bus 3.0 chapters 3.2.2.3.2, 6.1, 6.2 and 6.8.2.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "hv/devices/device.h"

namespace us::hv {

struct PciIdentity {
  uint16_t vendor = 0;
  uint16_t device = 0;
  uint16_t subsystem_vendor = 0;
  uint16_t subsystem = 0;
  uint8_t revision = 0;
  uint32_t class_code = 0;  // class, subclass, interface
};

// One function's configuration space. Bytes are read-only unless given a write mask.
class PciFunction : public Device {
 public:
  static constexpr unsigned kBars = 6;

  struct BarRange {
    uint64_t base = 0;
    uint64_t size = 0;
    MmioDevice* device = nullptr;
  };

  explicit PciFunction(const PciIdentity& identity);

  uint32_t read_config(unsigned offset, unsigned size);
  // True when a memory range moved, appeared or went away.
  bool write_config(unsigned offset, unsigned size, uint32_t value);

  bool has_bar(unsigned index) const { return bars_[index].device != nullptr; }
  uint32_t bar_size(unsigned index) const { return bars_[index].size; }
  // Where the BAR answers now; nothing while memory decoding is off.
  std::optional<BarRange> bar_range(unsigned index) const;
  // What firmware does: an address, decoding and bus mastering on, the 8259 interrupt.
  void assign_bar(unsigned index, uint32_t base);
  void enable(uint8_t interrupt_line);

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 protected:
  void add_bar(unsigned index, uint32_t size, MmioDevice* device);
  // Appends a capability: `body` after its two header bytes, `writable` masks it. Returns its
  // offset.
  unsigned add_capability(uint8_t id, ByteSpan body, ByteSpan writable);
  void set_interrupt_pin(uint8_t pin) { config_[kInterruptPin] = pin; }
  bool intx_disabled() const { return (config16(kCommand) & 0x400) != 0; }
  uint16_t config16(unsigned offset) const {
    return static_cast<uint16_t>(config_[offset] | config_[offset + 1] << 8);
  }
  uint32_t config32(unsigned offset) const {
    return config16(offset) | static_cast<uint32_t>(config16(offset + 2)) << 16;
  }
  void set_config(unsigned offset, unsigned size, uint32_t value);

  // Before a read and after a write of [offset, offset + size).
  virtual void config_will_be_read(unsigned offset, unsigned size) {}
  virtual void config_was_written(unsigned offset, unsigned size) {}

  static constexpr unsigned kCommand = 0x04;
  static constexpr unsigned kInterruptLine = 0x3c;
  static constexpr unsigned kInterruptPin = 0x3d;

 private:
  struct Bar {
    uint32_t size = 0;
    MmioDevice* device = nullptr;
  };

  std::array<uint8_t, 256> config_ = {};
  std::array<uint8_t, 256> writable_ = {};
  std::array<Bar, kBars> bars_;
  unsigned next_capability_ = 0x40;
  unsigned last_link_ = 0x34;  // where the next capability's offset goes
};

// The ports 0xcf8 and 0xcfc, and the host bridge at slot 0.
class PciHost final : public PioDevice {
 public:
  static constexpr unsigned kSlots = 32;

  // `remapped` is called whenever a function's memory ranges changed.
  explicit PciHost(std::function<void()> remapped);

  // Puts a function into the next free slot, assigns its BARs and interrupt; returns the slot.
  unsigned plug(PciFunction& function);
  unsigned next_slot() const { return next_slot_; }
  std::vector<PciFunction::BarRange> ranges() const;

  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;
  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  PciFunction* selected() const;

  std::function<void()> remapped_;
  PciFunction bridge_;
  std::array<PciFunction*, kSlots> slots_ = {};
  unsigned next_slot_ = 0;
  uint64_t next_address_;
  uint32_t address_ = 0;
};

}  // namespace us::hv
