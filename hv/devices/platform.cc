#include "hv/devices/platform.h"

#include <fmt/format.h>

#include "base/check.h"
#include "hv/devices/acpi_tables.h"
#include "hv/devices/platform_parts.h"

namespace us::hv {

Platform::Platform(const PlatformConfig& config, GuestMemory& memory, TimeSource& time,
                   OutputSink& output)
    : parts_(std::make_unique<Parts>(config, memory, time, output)) {}

Platform::~Platform() = default;

// --- Ports. An access wider than its device takes is a series of byte accesses, low port first.

uint32_t Platform::pio_read(uint16_t port, unsigned size) {
  Parts& p = *parts_;
  const PioMap::Range* range = p.ports.find(port);
  uint32_t value = 0;
  if (range != nullptr && size <= range->width) {
    value = range->device->pio_read(port, size) & static_cast<uint32_t>(all_ones(size));
  } else if (size == 1) {
    ++p.counters.absent_pio;
    return 0xff;
  } else {
    for (unsigned i = 0; i < size; ++i)
      value |= pio_read(static_cast<uint16_t>(port + i), 1) << (8 * i);
    return value;
  }
  p.settle();
  return value;
}

void Platform::pio_write(uint16_t port, unsigned size, uint32_t value) {
  Parts& p = *parts_;
  const PioMap::Range* range = p.ports.find(port);
  if (range != nullptr && size <= range->width) {
    range->device->pio_write(port, size, value & static_cast<uint32_t>(all_ones(size)));
  } else if (size == 1) {
    ++p.counters.absent_pio;
    return;
  } else {
    for (unsigned i = 0; i < size; ++i)
      pio_write(static_cast<uint16_t>(port + i), 1, (value >> (8 * i)) & 0xff);
    return;
  }
  if (range->device == &p.pic) p.update_pic_output();
  p.settle();
}

// --- Memory. The local APIC belongs to the processor: it answers before anything on the bus.

uint64_t Platform::mmio_read(GuestPhys address, unsigned size) {
  Parts& p = *parts_;
  uint64_t value = 0;
  const std::optional<uint64_t> apic = p.apic.mmio_base();
  if (apic && address.value - *apic <= kPageSize - size) {
    value = p.apic.mmio_read(address.value - *apic, size);
  } else if (const MmioMap::Range* range = p.addresses.find(address.value, size)) {
    value = range->device->mmio_read(address.value - range->first, size);
  } else {
    ++p.counters.absent_mmio;
    return all_ones(size);
  }
  p.settle();
  return value & all_ones(size);
}

void Platform::mmio_write(GuestPhys address, unsigned size, uint64_t value) {
  Parts& p = *parts_;
  value &= all_ones(size);
  const std::optional<uint64_t> apic = p.apic.mmio_base();
  if (apic && address.value - *apic <= kPageSize - size) {
    p.apic.mmio_write(address.value - *apic, size, value);
  } else if (const MmioMap::Range* range = p.addresses.find(address.value, size)) {
    range->device->mmio_write(address.value - range->first, size, value);
  } else {
    ++p.counters.absent_mmio;
    return;
  }
  p.settle();
}

bool Platform::msr_read(uint32_t index, uint64_t& value) {
  const bool ok = parts_->apic.msr_read(index, value);
  parts_->settle();
  return ok;
}

bool Platform::msr_write(uint32_t index, uint64_t value) {
  const bool ok = parts_->apic.msr_write(index, value);
  parts_->settle();
  return ok;
}

uint8_t Platform::task_priority() { return parts_->apic.task_priority(); }

void Platform::set_task_priority(uint8_t priority) {
  parts_->apic.set_task_priority(priority);
  parts_->settle();
}

bool Platform::take_attention() {
  const bool attention = parts_->attention;
  parts_->attention = false;
  return attention;
}

void Platform::guest_offset_changed() {
  parts_->apic.guest_offset_changed();
  parts_->settle();
}

// --- Interrupts

bool Platform::interrupt_pending() { return parts_->interrupt_pending(); }

std::optional<uint8_t> Platform::acknowledge_interrupt() {
  Parts& p = *parts_;
  std::optional<uint8_t> vector;
  if (p.extint_pending()) {
    vector = p.pic.acknowledge();
    p.update_pic_output();
  } else {
    vector = p.apic.acknowledge();
  }
  p.settle();
  return vector;
}

bool Platform::nmi_pending() const { return parts_->apic.nmi_pending(); }

bool Platform::take_nmi() {
  const bool pending = parts_->apic.take_nmi();
  parts_->settle();
  return pending;
}

// --- Time

std::optional<GuestTsc> Platform::next_deadline() {
  parts_->reported_deadline = parts_->next_deadline();
  if (parts_->reported_deadline == Parts::kNever) return std::nullopt;
  return GuestTsc(parts_->reported_deadline);
}

void Platform::advance(GuestTsc now) {
  for (TimerDevice* timer : parts_->timers) {
    const std::optional<GuestTsc> deadline = timer->next_deadline();
    if (deadline && *deadline <= now) timer->advance(now);
  }
  parts_->settle();
}

// --- Inputs

void Platform::frame(uint8_t device, ByteSpan frame) {
  Parts& p = *parts_;
  if (device < p.nets.size()) p.nets[device]->receive(frame);
  p.settle();
}

void Platform::disk_done(const DiskDoneInput& done) {
  Parts& p = *parts_;
  if (done.device < p.disks.size()) p.disks[done.device]->done(done);
  p.settle();
}

void Platform::console_input(uint8_t device, ByteSpan bytes) {
  Parts& p = *parts_;
  if (device == 0) p.counters.console_bytes_dropped += p.serial.receive(bytes);
  if (device == 1 && p.console != nullptr)
    p.counters.console_bytes_dropped += p.console->receive(bytes);
  p.settle();
}

void Platform::power_button() {
  parts_->acpi_pm.press_power_button();
  parts_->settle();
}

void Platform::nmi() {
  parts_->apic.pulse_lint1();
  parts_->settle();
}

PowerStatus Platform::power() const { return parts_->power(); }

GuestPhys Platform::install_acpi_tables() {
  const AcpiTables tables = build_acpi_tables(GuestPhys(kAcpiTablesBase));
  US_CHECK(parts_->memory.write(tables.base, tables.bytes));
  return tables.rsdp;
}

PlatformCounters Platform::counters() const {
  PlatformCounters counters = parts_->counters;
  for (const auto& net : parts_->nets) counters.frames_dropped += net->frames_dropped();
  for (const auto& [name, device] : parts_->virtio) counters.failed_devices += device->failed();
  return counters;
}

std::vector<DiskRequest> Platform::disk_requests_in_flight() const {
  std::vector<DiskRequest> requests;
  for (const auto& disk : parts_->disks) {
    for (DiskRequest& request : disk->in_flight()) requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace us::hv
