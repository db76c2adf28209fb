// Small ports of a PC board: POST code 0x80, fast reset 0x92, the keyboard controller's reset line,
// the reset control register 0xcf9 and, when asked for, QEMU's debug-exit port 0xf4.
#pragma once

#include <cstdint>
#include <optional>

#include "hv/devices/device.h"

namespace us::hv {

class BoardPorts final : public PioDevice {
 public:
  explicit BoardPorts(bool debug_exit) : debug_exit_enabled_(debug_exit) {}

  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;

  bool debug_exit_enabled() const { return debug_exit_enabled_; }
  bool reset_requested() const { return reset_requested_; }
  // The first value written to the debug-exit port, as QEMU's exit code: (value << 1) | 1.
  std::optional<uint32_t> debug_code() const { return debug_code_; }

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  const bool debug_exit_enabled_;
  bool reset_requested_ = false;
  std::optional<uint32_t> debug_code_;
  uint8_t post_code_ = 0;
  uint8_t system_control_ = 2;  // port 0x92: A20 is always open
  uint8_t reset_control_ = 0;
};

}  // namespace us::hv
