// The I/O APIC: 24 pins, edge and level, with the EOI register of version 0x20.
// Source: Intel 82093AA data sheet (290566) 3.0, ICH10 data sheet 13.5.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "hv/devices/device.h"
#include "hv/devices/local_apic.h"

namespace us::hv {

class IoApic final : public Device, public MmioDevice, public EoiListener {
 public:
  static constexpr unsigned kPins = 24;
  static constexpr uint64_t kMmioSize = 0x1000;

  explicit IoApic(LocalApic& apic) : apic_(apic) { redirection_.fill(kMasked); }

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;

  void set_pin(unsigned pin, bool level);
  void end_of_interrupt(uint8_t vector) override;
  // Pin 0 carries the 8259's output as ExtINT and the guest enabled it.
  bool passes_extint() const;

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;
  std::string dump() const;  // one line a pin in use

 private:
  static constexpr uint64_t kRemoteIrr = 1u << 14;
  static constexpr uint64_t kLevel = 1u << 15;
  static constexpr uint64_t kMasked = 1u << 16;

  uint32_t read_register() const;
  void write_register(uint32_t value);
  void service(unsigned pin);

  LocalApic& apic_;
  uint8_t select_ = 0;
  uint8_t id_ = 0;
  uint32_t levels_ = 0;  // a bit a pin
  std::array<uint64_t, kPins> redirection_;
};

}  // namespace us::hv
