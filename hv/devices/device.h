// What device models are made of. A model is a deterministic state machine: its state is a function
// of the guest's accesses, of the inputs applied to it and of the clock it is handed. It never
// looks at the host, and it runs on both sides of a replay.
#pragma once

#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/types.h"
#include "hv/core/clock.h"

namespace us::hv {

// The guest's clock as devices see it: kTscHz ticks a second, without the offset that the guest
// writes into its own TSC. Valid at any moment a device is called; never decreases.
class TimeSource {
 public:
  virtual ~TimeSource() = default;
  virtual GuestTsc now() = 0;
  // What RDTSC adds to now(), modulo 2^64. TSC-deadline comparisons need it (SDM 3A 10.5.4.1).
  virtual uint64_t guest_offset() = 0;
};

// State that a snapshot keeps. load() reads what save() wrote and marks the reader failed on values
// that the device could never have saved; the device is then in an unspecified but safe state.
class Device {
 public:
  virtual ~Device() = default;
  virtual void save(ByteWriter& out) const = 0;
  virtual void load(ByteReader& in) = 0;
};

// A device behind I/O ports. Called only for ports it was mapped at; size is 1, 2 or 4 and never
// larger than the width it was mapped with (wider accesses are split into bytes, low port first).
class PioDevice : public Device {
 public:
  virtual uint32_t pio_read(uint16_t port, unsigned size) = 0;
  virtual void pio_write(uint16_t port, unsigned size, uint32_t value) = 0;
};

// A device behind memory addresses. `offset` counts from the start of the mapping; size is 1, 2, 4
// or 8; the access lies wholly inside the mapping.
class MmioDevice {
 public:
  virtual ~MmioDevice() = default;
  virtual uint64_t mmio_read(uint64_t offset, unsigned size) = 0;
  virtual void mmio_write(uint64_t offset, unsigned size, uint64_t value) = 0;
};

// Something that fires at a guest time.
class TimerDevice {
 public:
  virtual ~TimerDevice() = default;
  // The device time at which advance() would next have an effect; may lie in the past.
  virtual std::optional<GuestTsc> next_deadline() const = 0;
  // Fires everything due at or before `now` (the clock's own reading, not before).
  virtual void advance(GuestTsc now) = 0;
};

// Where interrupt lines end. `line` 0-15 is an ISA interrupt (the 8259 pair and, after the timer's
// override of 0 to pin 2, the I/O APIC); 16-23 exist at the I/O APIC only.
class InterruptSink {
 public:
  virtual ~InterruptSink() = default;
  virtual void set_irq(unsigned line, bool level) = 0;
};

// Where message signalled interrupts end: a write of `data` to a bus address. SDM 3A 11.11.
class MsiSink {
 public:
  virtual ~MsiSink() = default;
  virtual void signal_msi(uint64_t address, uint32_t data) = 0;
};

// One input of an InterruptSink.
class IrqLine {
 public:
  IrqLine(InterruptSink& sink, unsigned line) : sink_(&sink), line_(line) {}
  void set(bool level) { sink_->set_irq(line_, level); }
  // A low-to-high edge whatever the level was; the line stays high.
  void pulse() {
    sink_->set_irq(line_, false);
    sink_->set_irq(line_, true);
  }

 private:
  InterruptSink* sink_;
  unsigned line_;
};

// All ones in `size` bytes: what an absent device answers.
constexpr uint64_t all_ones(unsigned size) { return size >= 8 ? ~0ull : (1ull << (8 * size)) - 1; }

// ticks * to_hz / from_hz, rounded down, without overflow for any sum below 2^64.
constexpr uint64_t scale_ticks(uint64_t ticks, uint64_t to_hz, uint64_t from_hz) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(ticks) * to_hz / from_hz);
}
// The same, rounded up: the first guest tick at which `ticks` of a device's clock have passed.
constexpr uint64_t scale_ticks_up(uint64_t ticks, uint64_t to_hz, uint64_t from_hz) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(ticks) * to_hz + from_hz - 1) /
                               from_hz);
}

}  // namespace us::hv
