// The MC146818 real-time clock and its CMOS memory. The time is the configured start plus the
// guest's clock, moved by what the guest sets. Source: Motorola MC146818 data sheet; the century
// byte is where the FADT says (ACPI 6.4 table 5.9).
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "hv/devices/device.h"

namespace us::hv {

class Rtc final : public PioDevice, public TimerDevice {
 public:
  static constexpr uint8_t kCenturyIndex = 0x32;

  Rtc(TimeSource& time, IrqLine irq, int64_t start_seconds);

  // Ports: 0x70-0x71.
  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;

  std::optional<GuestTsc> next_deadline() const override { return deadline_; }
  void advance(GuestTsc now) override;

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  // Broken-down time in plain binary, 24 hours.
  struct Fields {
    uint8_t second = 0, minute = 0, hour = 0, weekday = 1, day = 1, month = 1;
    uint16_t year = 1970;
  };
  static Fields to_fields(int64_t seconds);
  static int64_t to_seconds(const Fields& fields);

  bool set_mode() const;  // register B SET: the clock stands while the guest writes it
  // The wall clock's second, and the nanoseconds into it.
  int64_t wall_second(GuestTsc now) const {
    return offset_s_ + static_cast<int64_t>((now.value + offset_ns_) / kTscHz);
  }
  uint64_t into_second(GuestTsc now) const { return (now.value + offset_ns_) % kTscHz; }
  uint64_t periodic_ticks() const;  // of the 32768 Hz chain; 0: off
  uint8_t encode(uint8_t value) const;
  uint8_t decode(uint8_t value) const;
  uint8_t encode_hour(uint8_t hour) const;
  uint8_t decode_hour(uint8_t value) const;
  uint8_t read_register(GuestTsc now);
  uint8_t read_time(const Fields& fields) const;
  void write_register(uint8_t value, GuestTsc now);
  void write_time(Fields& fields, uint8_t value) const;
  void write_b(uint8_t value, GuestTsc now);
  int64_t next_alarm(int64_t after) const;  // the first matching second > after
  void update_irq();
  void rearm();

  TimeSource& time_;
  IrqLine irq_;
  uint8_t index_ = 0;
  std::array<uint8_t, 128> cmos_ = {};
  int64_t offset_s_;                  // wall clock = offset + device time
  uint64_t offset_ns_ = 0;            // below one second
  Fields frozen_;                     // while SET
  GuestTsc synced_;                   // flags in register C are right up to here
  std::optional<GuestTsc> deadline_;  // derived
};

}  // namespace us::hv
