#include "hv/devices/io_apic.h"

namespace us::hv {

namespace {

// Memory-mapped registers.
constexpr uint64_t kOffsetSelect = 0x00;
constexpr uint64_t kOffsetWindow = 0x10;
constexpr uint64_t kOffsetEoi = 0x40;

// Indirect registers.
constexpr uint8_t kRegId = 0;
constexpr uint8_t kRegVersion = 1;
constexpr uint8_t kRegArbitration = 2;
constexpr uint8_t kRegRedirection = 0x10;

constexpr uint32_t kVersion = 0x20 | ((IoApic::kPins - 1) << 16);

// Vector, delivery mode, destination mode, polarity, trigger, mask, destination; delivery status
// (12) and remote IRR (14) are read-only.
constexpr uint64_t kWritable = 0xff00'0000'0001'afffull;

}  // namespace

uint64_t IoApic::mmio_read(uint64_t offset, unsigned size) {
  const unsigned skip = offset & 15;
  if (skip + size > 4) return 0;
  uint32_t value = 0;
  if ((offset & ~15ull) == kOffsetSelect) value = select_;
  if ((offset & ~15ull) == kOffsetWindow) value = read_register();
  return (value >> (8 * skip)) & all_ones(size);
}

void IoApic::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset == kOffsetSelect) select_ = static_cast<uint8_t>(value);
  if (size < 4) return;  // the data registers take whole words
  if (offset == kOffsetWindow) write_register(static_cast<uint32_t>(value));
  if (offset == kOffsetEoi) end_of_interrupt(static_cast<uint8_t>(value));
}

uint32_t IoApic::read_register() const {
  if (select_ == kRegId || select_ == kRegArbitration) return static_cast<uint32_t>(id_) << 24;
  if (select_ == kRegVersion) return kVersion;
  const unsigned pin = (select_ - kRegRedirection) / 2u;
  if (select_ < kRegRedirection || pin >= kPins) return 0;
  return static_cast<uint32_t>(redirection_[pin] >> ((select_ & 1) * 32));
}

void IoApic::write_register(uint32_t value) {
  if (select_ == kRegId) id_ = (value >> 24) & 0xf;
  const unsigned pin = (select_ - kRegRedirection) / 2u;
  if (select_ < kRegRedirection || pin >= kPins) return;
  const unsigned shift = (select_ & 1) * 32;
  uint64_t& entry = redirection_[pin];
  const uint64_t mask = (0xffff'ffffull << shift) & kWritable;
  entry = (entry & ~mask) | ((static_cast<uint64_t>(value) << shift) & mask);
  if ((entry & kLevel) == 0) entry &= ~kRemoteIrr;  // an edge entry has none
  if ((entry & kLevel) != 0) service(pin);          // a level that waited behind the mask
}

void IoApic::set_pin(unsigned pin, bool level) {
  if (pin >= kPins) return;
  const bool was = (levels_ >> pin) & 1;
  levels_ = level ? levels_ | (1u << pin) : levels_ & ~(1u << pin);
  if (!level) return;
  if ((redirection_[pin] & kLevel) != 0 || !was) service(pin);
}

// Sends the pin's message if it may go: unmasked and, for level entries, asserted and not already
// on its way.
void IoApic::service(unsigned pin) {
  uint64_t& entry = redirection_[pin];
  if ((entry & kMasked) != 0) return;
  const bool level = (entry & kLevel) != 0;
  if (level && (((levels_ >> pin) & 1) == 0 || (entry & kRemoteIrr) != 0)) return;
  ApicMessage message;
  message.vector = static_cast<uint8_t>(entry);
  message.mode = static_cast<DeliveryMode>((entry >> 8) & 7);
  message.logical = (entry & 0x800) != 0;
  message.destination = static_cast<uint32_t>(entry >> 56);
  message.level = level;
  if (message.mode == DeliveryMode::kExtInt) return;  // pin 0's level is looked at instead
  if (apic_.deliver(message) && level) entry |= kRemoteIrr;
}

void IoApic::end_of_interrupt(uint8_t vector) {
  for (unsigned pin = 0; pin < kPins; ++pin) {
    uint64_t& entry = redirection_[pin];
    if ((entry & kRemoteIrr) == 0 || static_cast<uint8_t>(entry) != vector) continue;
    entry &= ~kRemoteIrr;
    service(pin);
  }
}

bool IoApic::passes_extint() const {
  return (redirection_[0] & kMasked) == 0 &&
         static_cast<DeliveryMode>((redirection_[0] >> 8) & 7) == DeliveryMode::kExtInt;
}

void IoApic::save(ByteWriter& out) const {
  out.put(select_);
  out.put(id_);
  out.put(levels_);
  for (uint64_t entry : redirection_) out.put(entry);
}

void IoApic::load(ByteReader& in) {
  select_ = in.get<uint8_t>();
  id_ = in.get<uint8_t>() & 0xf;
  levels_ = in.get<uint32_t>() & ((1u << kPins) - 1);
  for (uint64_t& entry : redirection_) {
    entry = in.get<uint64_t>();
    if ((entry & ~(kWritable | kRemoteIrr)) != 0) in.fail();
  }
}

}  // namespace us::hv
