// A 16550A UART without line timing: what is written leaves at once, what arrives waits in a
// bounded queue behind the receive FIFO. Source: National PC16550D data sheet.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>

#include "hv/devices/device.h"

namespace us::hv {

class Serial final : public PioDevice {
 public:
  static constexpr size_t kQueueMax = 64 * 1024;

  // `transmit` is called with each byte that leaves.
  Serial(IrqLine irq, std::function<void(uint8_t)> transmit)
      : irq_(irq), transmit_(std::move(transmit)) {}

  // Eight ports from a multiple of eight.
  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;

  // Bytes from outside; returns how many did not fit.
  size_t receive(ByteSpan bytes);

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  uint8_t read_register(unsigned index);
  void write_register(unsigned index, uint8_t value);
  uint8_t read_data();
  void write_data(uint8_t value);
  void write_fifo_control(uint8_t value);
  uint8_t line_status();
  uint8_t modem_status() const;
  void modem_changed(uint8_t before);
  uint8_t interrupt_id() const;  // IIR bits 3:0
  size_t trigger_level() const;
  bool fifo_enabled() const { return (fcr_ & 1) != 0; }
  bool loopback() const { return (mcr_ & 0x10) != 0; }
  void update() { irq_.set((interrupt_id() & 1) == 0); }

  IrqLine irq_;
  std::function<void(uint8_t)> transmit_;
  uint8_t ier_ = 0;
  uint8_t fcr_ = 0;
  uint8_t lcr_ = 0;
  uint8_t mcr_ = 0;
  uint8_t scratch_ = 0;
  uint16_t divisor_ = 12;    // 9600 baud
  uint8_t modem_delta_ = 0;  // MSR bits 3:0
  bool overrun_ = false;
  bool thr_interrupt_ = false;  // the transmitter ran empty and nobody was told
  std::deque<uint8_t> queue_;   // received; the first 16 (1 without FIFO) are in the UART
};

}  // namespace us::hv
