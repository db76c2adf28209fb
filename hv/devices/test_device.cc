#include "hv/devices/test_device.h"

#include <cstring>

namespace us::hv {

uint32_t TestDevice::pio_read(uint16_t port, unsigned size) {
  if (port >= kPortData && port < kPortData + 4u)
    return data_ >> (8 * (port - kPortData)) & static_cast<uint32_t>(all_ones(size));
  if (port == kPortByte) return byte_;
  return 0;
}

void TestDevice::pio_write(uint16_t port, unsigned size, uint32_t value) {
  if (port >= kPortData && port < kPortData + 4u) {
    const unsigned shift = 8 * (port - kPortData);
    const uint32_t mask = static_cast<uint32_t>(all_ones(size)) << shift;
    data_ = (data_ & ~mask) | ((value << shift) & mask);
  } else if (port == kPortByte) {
    byte_ = static_cast<uint8_t>(value);
  } else if (port >= kPortLines && port < kPortLines + kLines) {
    interrupts_.set_irq(port - kPortLines, value != 0);
  }
}

uint64_t TestDevice::mmio_read(uint64_t offset, unsigned size) {
  uint64_t value = 0;
  std::memcpy(&value, memory_.data() + offset, size);
  return value;
}

void TestDevice::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  std::memcpy(memory_.data() + offset, &value, size);
}

void TestDevice::save(ByteWriter& out) const {
  out.put(data_);
  out.put(byte_);
  out.put_bytes(memory_);
}

void TestDevice::load(ByteReader& in) {
  data_ = in.get<uint32_t>();
  byte_ = in.get<uint8_t>();
  in.get_into(memory_);
}

}  // namespace us::hv
