// The ACPI fixed hardware: PM1a event and control blocks, the PM timer, the reset register, and the
// power button. Always in ACPI mode (SMI_CMD is 0, SCI_EN reads 1). ACPI 6.4 chapter 4.8.
#pragma once

#include <cstdint>
#include <optional>

#include "hv/devices/device.h"

namespace us::hv {

class AcpiPm final : public PioDevice, public TimerDevice {
 public:
  static constexpr uint64_t kTimerHz = 3'579'545;  // ACPI 6.4 4.8.2.1
  static constexpr uint8_t kSleepTypeS5 = 5;       // as the DSDT's \_S5 says

  AcpiPm(TimeSource& time, IrqLine sci) : time_(time), sci_(sci) {}

  // Ports: the event block (4), the control register (2) and the timer (4), see layout.h.
  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;

  void press_power_button();
  bool powered_off() const { return powered_off_; }

  std::optional<GuestTsc> next_deadline() const override { return deadline_; }
  void advance(GuestTsc now) override;

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  uint8_t read_byte(uint16_t port, uint32_t timer) const;
  void write_byte(uint16_t port, uint8_t value);
  uint64_t timer(GuestTsc now) const { return scale_ticks(now.value, kTimerHz, kTscHz); }
  void update();
  void rearm();

  TimeSource& time_;
  IrqLine sci_;
  uint16_t status_ = 0;
  uint16_t enable_ = 0;
  uint16_t control_ = 1;  // SCI_EN
  uint64_t carries_ = 0;  // changes of the timer's top bit that were noted in TMR_STS
  bool powered_off_ = false;
  std::optional<GuestTsc> deadline_;  // derived
};

}  // namespace us::hv
