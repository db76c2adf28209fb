// What test kernels expect next to the debug-exit port: QEMU's pc-testdev, with interrupt lines
// that the guest itself moves, a port that keeps what is written, and a patch of plain device
// memory. Source: QEMU hw/misc/pc-testdev.c (its address map).
#pragma once

#include <array>
#include <cstdint>

#include "hv/devices/device.h"

namespace us::hv {

class TestDevice final : public PioDevice, public MmioDevice {
 public:
  static constexpr uint16_t kPortData = 0xe0;   // four bytes that read back
  static constexpr uint16_t kPortFlush = 0xe4;  // four bytes, no effect: nothing is cached
  static constexpr uint16_t kPortByte = 0xe8;   // one byte that reads back
  static constexpr uint16_t kPortLines = 0x2000;
  static constexpr unsigned kLines = 24;
  static constexpr uint64_t kMemoryBase = 0xff00'0000;
  static constexpr uint64_t kMemorySize = 0x1'0000;

  explicit TestDevice(InterruptSink& interrupts) : interrupts_(interrupts) {}

  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;
  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;
  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  InterruptSink& interrupts_;
  uint32_t data_ = 0;
  uint8_t byte_ = 0;
  std::array<uint8_t, kMemorySize> memory_ = {};
};

}  // namespace us::hv
