#include "hv/devices/pci.h"

#include "base/check.h"
#include "hv/devices/layout.h"

namespace us::hv {

namespace {

constexpr unsigned kStatus = 0x06;
constexpr unsigned kFirstBar = 0x10;
constexpr uint16_t kCommandMemory = 2;
constexpr uint16_t kCommandMaster = 4;
// I/O, memory, bus master, parity, SERR, INTx disable.
constexpr uint16_t kCommandWritable = 0x0547;
constexpr uint8_t kStatusCapabilities = 0x10;

constexpr uint16_t kPortAddress = 0xcf8;
constexpr uint16_t kPortData = 0xcfc;
constexpr uint32_t kAddressEnable = 1u << 31;

// A generic host bridge of the vendor that virtual machines share, without a chipset's quirks.
constexpr PciIdentity kBridge = {.vendor = 0x1b36,
                                 .device = 0x0008,
                                 .subsystem_vendor = 0x1af4,
                                 .subsystem = 0x1100,
                                 .revision = 0,
                                 .class_code = 0x06'0000};

}  // namespace

PciFunction::PciFunction(const PciIdentity& identity) {
  set_config(0x00, 2, identity.vendor);
  set_config(0x02, 2, identity.device);
  set_config(0x08, 4, identity.class_code << 8 | identity.revision);
  set_config(0x2c, 2, identity.subsystem_vendor);
  set_config(0x2e, 2, identity.subsystem);
  writable_[kCommand] = kCommandWritable & 0xff;
  writable_[kCommand + 1] = kCommandWritable >> 8;
  writable_[0x0c] = 0xff;  // cache line size
  writable_[kInterruptLine] = 0xff;
}

void PciFunction::set_config(unsigned offset, unsigned size, uint32_t value) {
  for (unsigned i = 0; i < size; ++i) config_[offset + i] = static_cast<uint8_t>(value >> (8 * i));
}

void PciFunction::add_bar(unsigned index, uint32_t size, MmioDevice* device) {
  US_CHECK(size >= 16 && (size & (size - 1)) == 0);
  bars_[index] = {size, device};
  // Address bits below the size read zero: this is how software finds the size (6.2.5.1).
  for (unsigned i = 0; i < 4; ++i)
    writable_[kFirstBar + 4 * index + i] = static_cast<uint8_t>(~(size - 1) >> (8 * i));
}

unsigned PciFunction::add_capability(uint8_t id, ByteSpan body, ByteSpan writable) {
  const unsigned at = next_capability_;
  US_CHECK(at + 2 + body.size() <= 256 && writable.size() == body.size());
  config_[last_link_] = static_cast<uint8_t>(at);
  config_[kStatus] |= kStatusCapabilities;
  config_[at] = id;
  for (size_t i = 0; i < body.size(); ++i) {
    config_[at + 2 + i] = body[i];
    writable_[at + 2 + i] = writable[i];
  }
  last_link_ = at + 1;
  next_capability_ = (at + 2 + static_cast<unsigned>(body.size()) + 3) & ~3u;
  return at;
}

std::optional<PciFunction::BarRange> PciFunction::bar_range(unsigned index) const {
  const Bar& bar = bars_[index];
  if (bar.device == nullptr || (config16(kCommand) & kCommandMemory) == 0) return std::nullopt;
  return BarRange{config32(kFirstBar + 4 * index), bar.size, bar.device};
}

void PciFunction::assign_bar(unsigned index, uint32_t base) {
  set_config(kFirstBar + 4 * index, 4, base);
}

void PciFunction::enable(uint8_t interrupt_line) {
  set_config(kCommand, 2, kCommandMemory | kCommandMaster);
  if (config_[kInterruptPin] != 0) config_[kInterruptLine] = interrupt_line;
}

uint32_t PciFunction::read_config(unsigned offset, unsigned size) {
  US_CHECK(offset + size <= 256);
  config_will_be_read(offset, size);
  uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i)
    value |= static_cast<uint32_t>(config_[offset + i]) << (8 * i);
  return value;
}

bool PciFunction::write_config(unsigned offset, unsigned size, uint32_t value) {
  US_CHECK(offset + size <= 256);
  for (unsigned i = 0; i < size; ++i) {
    const uint8_t mask = writable_[offset + i];
    const auto byte = static_cast<uint8_t>(value >> (8 * i));
    config_[offset + i] = static_cast<uint8_t>((config_[offset + i] & ~mask) | (byte & mask));
  }
  config_was_written(offset, size);
  const bool command = offset < kCommand + 2 && offset + size > kCommand;
  const bool bar = offset < kFirstBar + 4 * kBars && offset + size > kFirstBar;
  return command || bar;
}

// Only what the guest can change is state.
void PciFunction::save(ByteWriter& out) const {
  for (size_t i = 0; i < config_.size(); ++i) {
    if (writable_[i] != 0) out.put(config_[i]);
  }
}

void PciFunction::load(ByteReader& in) {
  for (size_t i = 0; i < config_.size(); ++i) {
    if (writable_[i] == 0) continue;
    const auto byte = in.get<uint8_t>();
    if (((byte ^ config_[i]) & ~writable_[i]) != 0) in.fail();
    config_[i] = byte;
  }
}

// --- The host bridge

PciHost::PciHost(std::function<void()> remapped)
    : remapped_(std::move(remapped)), bridge_(kBridge), next_address_(kPciWindowBase) {
  plug(bridge_);
}

unsigned PciHost::plug(PciFunction& function) {
  US_CHECK(next_slot_ < kSlots);
  const unsigned slot = next_slot_++;
  slots_[slot] = &function;
  for (unsigned i = 0; i < PciFunction::kBars; ++i) {
    if (!function.has_bar(i)) continue;
    const uint64_t size = function.bar_size(i);
    next_address_ = (next_address_ + size - 1) & ~(size - 1);
    function.assign_bar(i, static_cast<uint32_t>(next_address_));
    next_address_ += size;
    US_CHECK(next_address_ <= kPciWindowBase + kPciWindowSize);
  }
  function.enable(static_cast<uint8_t>(slot % 2 != 0 ? kIrqPciPic1 : kIrqPciPic0));
  return slot;
}

std::vector<PciFunction::BarRange> PciHost::ranges() const {
  std::vector<PciFunction::BarRange> ranges;
  for (unsigned slot = 0; slot < next_slot_; ++slot) {
    for (unsigned i = 0; i < PciFunction::kBars; ++i) {
      const auto range = slots_[slot]->bar_range(i);
      if (range) ranges.push_back(*range);
    }
  }
  return ranges;
}

// Bus 0, function 0 of a filled slot, or nothing. PCI 3.0 3.2.2.3.2.
PciFunction* PciHost::selected() const {
  if ((address_ & kAddressEnable) == 0 || ((address_ >> 16) & 0xff) != 0) return nullptr;
  if (((address_ >> 8) & 7) != 0) return nullptr;
  return slots_[(address_ >> 11) & 31];
}

uint32_t PciHost::pio_read(uint16_t port, unsigned size) {
  if (port == kPortAddress && size == 4) return address_;
  const unsigned offset = (address_ & 0xfc) + (port - kPortData);
  PciFunction* function = selected();
  if (port < kPortData || function == nullptr || (offset & 3) + size > 4)
    return static_cast<uint32_t>(all_ones(size));
  return function->read_config(offset, size);
}

void PciHost::pio_write(uint16_t port, unsigned size, uint32_t value) {
  if (port == kPortAddress && size == 4) {
    address_ = value & ~0x7f00'0003u;
    return;
  }
  const unsigned offset = (address_ & 0xfc) + (port - kPortData);
  PciFunction* function = selected();
  if (port < kPortData || function == nullptr || (offset & 3) + size > 4) return;
  if (function->write_config(offset, size, value)) remapped_();
}

void PciHost::save(ByteWriter& out) const {
  out.put(address_);
  bridge_.save(out);
}

void PciHost::load(ByteReader& in) {
  address_ = in.get<uint32_t>();
  bridge_.load(in);
}

}  // namespace us::hv
