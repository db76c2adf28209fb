#include "hv/devices/acpi_pm.h"

#include "hv/devices/layout.h"

namespace us::hv {

namespace {

// PM1 status and enable bits: ACPI 6.4 tables 4.13 and 4.14.
constexpr uint16_t kTimerBit = 1u << 0;
constexpr uint16_t kGlobalBit = 1u << 5;
constexpr uint16_t kPowerButtonBit = 1u << 8;
constexpr uint16_t kRtcBit = 1u << 10;
constexpr uint16_t kEnableWritable = kTimerBit | kGlobalBit | kPowerButtonBit | kRtcBit;

// PM1 control: ACPI 6.4 table 4.15.
constexpr uint16_t kControlSciEnable = 1u << 0;
constexpr uint16_t kControlWritable = 0x1c02;  // SLP_TYP, BM_RLD
constexpr uint16_t kControlSleepEnable = 1u << 13;

// TMR_STS is set whenever the timer's highest bit, 31 here, changes.
constexpr unsigned kTimerTopBit = 31;

}  // namespace

uint32_t AcpiPm::pio_read(uint16_t port, unsigned size) {
  const GuestTsc now = time_.now();
  advance(now);
  const auto ticks = static_cast<uint32_t>(timer(now));
  uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i)
    value |= static_cast<uint32_t>(read_byte(static_cast<uint16_t>(port + i), ticks)) << (8 * i);
  return value;
}

uint8_t AcpiPm::read_byte(uint16_t port, uint32_t ticks) const {
  switch (port) {
    case kPortPm1Event: return static_cast<uint8_t>(status_);
    case kPortPm1Event + 1: return static_cast<uint8_t>(status_ >> 8);
    case kPortPm1Event + 2: return static_cast<uint8_t>(enable_);
    case kPortPm1Event + 3: return static_cast<uint8_t>(enable_ >> 8);
    case kPortPm1Control: return static_cast<uint8_t>(control_);
    case kPortPm1Control + 1: return static_cast<uint8_t>(control_ >> 8);
    default: break;
  }
  if (port >= kPortPmTimer && port < kPortPmTimer + 4)
    return static_cast<uint8_t>(ticks >> (8 * (port - kPortPmTimer)));
  return 0;
}

void AcpiPm::pio_write(uint16_t port, unsigned size, uint32_t value) {
  advance(time_.now());
  for (unsigned i = 0; i < size; ++i)
    write_byte(static_cast<uint16_t>(port + i), static_cast<uint8_t>(value >> (8 * i)));
  update();
}

void AcpiPm::write_byte(uint16_t port, uint8_t value) {
  const auto low = static_cast<uint16_t>(value);
  const auto high = static_cast<uint16_t>(value << 8);
  switch (port) {
    case kPortPm1Event: status_ &= static_cast<uint16_t>(~low); break;  // write 1 to clear
    case kPortPm1Event + 1: status_ &= static_cast<uint16_t>(~high); break;
    case kPortPm1Event + 2: enable_ = (enable_ & 0xff00) | (low & kEnableWritable); break;
    case kPortPm1Event + 3: enable_ = (enable_ & 0x00ff) | (high & kEnableWritable); break;
    case kPortPm1Control:
      control_ = (control_ & 0xff00) | (low & kControlWritable) | kControlSciEnable;
      break;
    case kPortPm1Control + 1:
      control_ = (control_ & 0x00ff) | (high & kControlWritable);
      if ((high & kControlSleepEnable) != 0 && ((control_ >> 10) & 7) == kSleepTypeS5)
        powered_off_ = true;
      break;
    default: break;  // the timer is read-only
  }
}

void AcpiPm::press_power_button() {
  advance(time_.now());
  status_ |= kPowerButtonBit;
  update();
}

void AcpiPm::update() {
  sci_.set((status_ & enable_ & (kTimerBit | kPowerButtonBit)) != 0);
  rearm();
}

// Finds the timer's next carry, if anybody wants to know of it.
void AcpiPm::rearm() {
  deadline_.reset();
  if ((enable_ & kTimerBit) != 0 && (status_ & kTimerBit) == 0)
    deadline_ = GuestTsc(scale_ticks_up((carries_ + 1) << kTimerTopBit, kTscHz, kTimerHz));
}

void AcpiPm::advance(GuestTsc now) {
  const uint64_t carries = timer(now) >> kTimerTopBit;
  if (carries == carries_) return;
  carries_ = carries;
  status_ |= kTimerBit;
  update();
}

void AcpiPm::save(ByteWriter& out) const {
  out.put(status_);
  out.put(enable_);
  out.put(control_);
  out.put(carries_);
  out.put(static_cast<uint8_t>(powered_off_));
}

void AcpiPm::load(ByteReader& in) {
  status_ = in.get<uint16_t>();
  enable_ = in.get<uint16_t>() & kEnableWritable;
  control_ = in.get<uint16_t>();
  carries_ = in.get<uint64_t>();
  powered_off_ = in.get<uint8_t>() != 0;
  rearm();
}

}  // namespace us::hv
