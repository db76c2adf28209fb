#include "hv/devices/serial.h"

#include <algorithm>

namespace us::hv {

namespace {

enum Register : unsigned { kData, kIer, kIirFcr, kLcr, kMcr, kLsr, kMsr, kScratch };

constexpr uint8_t kLcrDivisorLatch = 0x80;

// Interrupt identification, highest priority first (PC16550D table 5).
constexpr uint8_t kIirNone = 1;
constexpr uint8_t kIirLineStatus = 6;
constexpr uint8_t kIirData = 4;
constexpr uint8_t kIirTimeout = 12;
constexpr uint8_t kIirThrEmpty = 2;
constexpr uint8_t kIirModem = 0;

constexpr size_t kFifoSize = 16;

}  // namespace

uint32_t Serial::pio_read(uint16_t port, unsigned) { return read_register(port & 7); }

void Serial::pio_write(uint16_t port, unsigned, uint32_t value) {
  write_register(port & 7, static_cast<uint8_t>(value));
  update();
}

size_t Serial::trigger_level() const {
  constexpr size_t kLevels[] = {1, 4, 8, 14};
  return fifo_enabled() ? kLevels[fcr_ >> 6] : 1;
}

uint8_t Serial::interrupt_id() const {
  if ((ier_ & 4) != 0 && overrun_) return kIirLineStatus;
  if ((ier_ & 1) != 0 && !queue_.empty()) {
    // Nothing passes between bytes here, so a FIFO below its trigger has timed out.
    return queue_.size() >= trigger_level() ? kIirData : kIirTimeout;
  }
  if ((ier_ & 2) != 0 && thr_interrupt_) return kIirThrEmpty;
  if ((ier_ & 8) != 0 && modem_delta_ != 0) return kIirModem;
  return kIirNone;
}

// Loopback wires RTS, DTR, OUT1, OUT2 to CTS, DSR, RI, DCD; outside, a peer is always ready.
uint8_t Serial::modem_status() const {
  if (!loopback()) return 0xb0 | modem_delta_;
  return static_cast<uint8_t>(((mcr_ & 2) << 3) | ((mcr_ & 1) << 5) | ((mcr_ & 4) << 4) |
                              ((mcr_ & 8) << 4) | modem_delta_);
}

void Serial::modem_changed(uint8_t before) {
  const uint8_t after = modem_status();
  const auto changed = static_cast<uint8_t>((before ^ after) >> 4);
  const bool ring_ended = (before & 0x40) != 0 && (after & 0x40) == 0;
  modem_delta_ |= static_cast<uint8_t>((changed & 0xb) | (ring_ended ? 4 : 0));
}

uint8_t Serial::line_status() {
  // Transmitter always empty; data ready; overrun since the last reading.
  const auto value = static_cast<uint8_t>(0x60 | (queue_.empty() ? 0 : 1) | (overrun_ ? 2 : 0));
  overrun_ = false;
  update();
  return value;
}

uint8_t Serial::read_data() {
  if (queue_.empty()) return 0;
  const uint8_t byte = queue_.front();
  queue_.pop_front();
  update();
  return byte;
}

uint8_t Serial::read_register(unsigned index) {
  const bool latch = (lcr_ & kLcrDivisorLatch) != 0;
  switch (index) {
    case kData: return latch ? static_cast<uint8_t>(divisor_) : read_data();
    case kIer: return latch ? static_cast<uint8_t>(divisor_ >> 8) : ier_;
    case kIirFcr: {
      const uint8_t id = interrupt_id();
      if (id == kIirThrEmpty) {  // reading it acknowledges this one
        thr_interrupt_ = false;
        update();
      }
      return static_cast<uint8_t>(id | (fifo_enabled() ? 0xc0 : 0));
    }
    case kLcr: return lcr_;
    case kMcr: return mcr_;
    case kLsr: return line_status();
    case kMsr: {
      const uint8_t value = modem_status();
      modem_delta_ = 0;
      update();
      return value;
    }
    default: return scratch_;
  }
}

void Serial::write_data(uint8_t value) {
  if (loopback()) {
    const size_t room = fifo_enabled() ? kFifoSize : 1;
    if (queue_.size() < room) {
      queue_.push_back(value);
    } else {
      overrun_ = true;
    }
  } else {
    transmit_(value);
  }
  thr_interrupt_ = true;
}

void Serial::write_fifo_control(uint8_t value) {
  const bool toggled = ((value ^ fcr_) & 1) != 0;
  if ((value & 2) != 0 || toggled) {
    // Clears the FIFO only: what has not reached the UART yet still arrives.
    const size_t held = std::min(queue_.size(), fifo_enabled() ? kFifoSize : 1);
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(held));
  }
  fcr_ = (value & 1) != 0 ? value & 0xc9 : 0;
}

void Serial::write_register(unsigned index, uint8_t value) {
  const bool latch = (lcr_ & kLcrDivisorLatch) != 0;
  switch (index) {
    case kData:
      if (latch) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
      } else {
        write_data(value);
      }
      break;
    case kIer:
      if (latch) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff) | (value << 8));
      } else {
        // Enabling the transmitter's interrupt while it is empty raises it (PC16550D 8.4.2).
        if ((value & 2) != 0 && (ier_ & 2) == 0) thr_interrupt_ = true;
        ier_ = value & 0xf;
      }
      break;
    case kIirFcr: write_fifo_control(value); break;
    case kLcr: lcr_ = value; break;
    case kMcr: {
      const uint8_t before = modem_status();
      mcr_ = value & 0x1f;
      modem_changed(before);
      break;
    }
    case kScratch: scratch_ = value; break;
    default: break;  // LSR and MSR are read-only
  }
}

size_t Serial::receive(ByteSpan bytes) {
  const size_t taken = std::min(bytes.size(), kQueueMax - std::min(kQueueMax, queue_.size()));
  queue_.insert(queue_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
  update();
  return bytes.size() - taken;
}

void Serial::save(ByteWriter& out) const {
  for (uint8_t byte : {ier_, fcr_, lcr_, mcr_, scratch_, modem_delta_}) out.put(byte);
  out.put(divisor_);
  out.put(static_cast<uint8_t>(overrun_));
  out.put(static_cast<uint8_t>(thr_interrupt_));
  out.put_blob(Bytes(queue_.begin(), queue_.end()));
}

void Serial::load(ByteReader& in) {
  for (uint8_t* byte : {&ier_, &fcr_, &lcr_, &mcr_, &scratch_, &modem_delta_})
    *byte = in.get<uint8_t>();
  divisor_ = in.get<uint16_t>();
  overrun_ = in.get<uint8_t>() != 0;
  thr_interrupt_ = in.get<uint8_t>() != 0;
  const Bytes queue = in.get_blob();
  if (queue.size() > kQueueMax) in.fail();
  queue_.assign(queue.begin(), queue.end());
}

}  // namespace us::hv
