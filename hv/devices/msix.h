// An MSI-X table and its pending bits, one BAR. PCI 3.0 6.8.2.
#pragma once

#include <array>
#include <cstdint>

#include "hv/devices/device.h"

namespace us::hv {

class Msix final : public Device, public MmioDevice {
 public:
  static constexpr unsigned kVectorsMax = 64;
  static constexpr uint32_t kBarSize = 0x1000;
  static constexpr uint32_t kTableOffset = 0;
  static constexpr uint32_t kPendingOffset = 0x800;

  Msix(MsiSink& sink, unsigned vectors);

  unsigned vectors() const { return vectors_; }
  bool enabled() const { return enabled_; }
  // From the capability's message control: the enable and function mask bits.
  void set_control(bool enabled, bool function_masked);
  // Sends vector `index`, or remembers it while masked. Out of range: nobody.
  void signal(unsigned index);

  uint64_t mmio_read(uint64_t offset, unsigned size) override;
  void mmio_write(uint64_t offset, unsigned size, uint64_t value) override;
  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  struct Entry {
    std::array<uint32_t, 4> words = {0, 0, 0, 1};  // address, data, control: masked
  };
  void flush(unsigned index);  // sends a remembered message if it may go now
  uint32_t read_word(uint64_t offset) const;
  void write_word(uint64_t offset, uint32_t value);

  MsiSink& sink_;
  const unsigned vectors_;
  std::array<Entry, kVectorsMax> table_ = {};
  uint64_t pending_ = 0;
  bool enabled_ = false;
  bool function_masked_ = false;
};

}  // namespace us::hv
