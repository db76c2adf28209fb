// The 8254 interval timer and the system control port 0x61 that gates its channel 2.
// Source: Intel 8254 data sheet (231164); PIIX3 data sheet 4.3 for port 0x61.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "hv/devices/device.h"

namespace us::hv {

class Pit final : public PioDevice, public TimerDevice {
 public:
  static constexpr uint64_t kHz = 1'193'182;

  Pit(TimeSource& time, IrqLine irq) : time_(time), irq_(irq) {}

  // Ports: 0x40-0x43, 0x61.
  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;

  std::optional<GuestTsc> next_deadline() const override { return deadline_; }
  void advance(GuestTsc now) override;

  void save(ByteWriter& out) const override;
  void load(ByteReader& in) override;

 private:
  struct Channel {
    uint8_t control = 0x30;  // bits 5:0 of the control word: access, mode, BCD
    bool gate = true;
    bool loaded = false;   // a whole count was written since the control word
    bool running = false;  // counts from `start`; stopped by the gate otherwise
    uint16_t reload = 0;
    uint8_t low_byte = 0;     // first half of a two-byte write
    bool write_high = false;  // the second half is next
    bool read_high = false;
    uint8_t latched_bytes = 0;  // unread bytes of `latch`
    uint16_t latch = 0;
    bool status_latched = false;
    uint8_t status = 0;
    GuestTsc start = {};
    uint64_t before = 0;  // clocks counted before `start`

    unsigned access() const { return (control >> 4) & 3; }
    unsigned mode() const;
    uint64_t period() const;  // clocks; 1 to 65536
    uint64_t elapsed(GuestTsc now) const;
    uint16_t count(GuestTsc now) const;
    bool output(GuestTsc now) const;
    void load_count(uint16_t value, GuestTsc now);
    void set_gate(bool level, GuestTsc now);
    void save(ByteWriter& out) const;
    void load(ByteReader& in);
  };

  void write_control(uint8_t value, GuestTsc now);
  void write_channel(unsigned index, uint8_t value, GuestTsc now);
  uint8_t read_channel(Channel& channel, GuestTsc now);
  void latch_count(Channel& channel, GuestTsc now);
  void rearm();  // channel 0's next rising edge

  TimeSource& time_;
  IrqLine irq_;
  std::array<Channel, 3> channels_ = {Channel{}, Channel{}, Channel{.gate = false}};
  bool speaker_ = false;
  uint64_t edges_ = 0;  // rising edges of channel 0's output since its count was loaded
  std::optional<GuestTsc> deadline_;  // derived
};

}  // namespace us::hv
