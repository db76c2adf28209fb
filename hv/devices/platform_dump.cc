// The devices' state for people: crash reports, triple faults, questions.
#include <fmt/format.h>

#include "hv/devices/platform_parts.h"

namespace us::hv {

namespace {

const char* power_name(PowerState state) {
  switch (state) {
    case PowerState::kRunning: return "running";
    case PowerState::kPoweredOff: return "powered off";
    case PowerState::kResetRequested: return "reset requested";
    case PowerState::kDebugExit: return "debug exit";
  }
  return "?";
}

}  // namespace

std::string LocalApic::dump() const {
  std::string text =
      fmt::format("local APIC: base {:#x} svr {:#x} tpr {:#x} ppr {:#x} esr {:#x} icr {:#x}\n",
                  apic_base_, svr_, tpr_, priority(), esr_, icr_);
  text +=
      fmt::format("  lvt timer {:#x} lint0 {:#x}{} lint1 {:#x} error {:#x}\n", lvt_[kLvtTimer],
                  lvt_[kLvtLint0], lint0_level_ ? " (high)" : "", lvt_[kLvtLint1], lvt_[kLvtError]);
  for (const auto& [name, map] : {std::pair{"irr", &irr_}, std::pair{"isr", &isr_}}) {
    text += fmt::format("  {}", name);
    for (unsigned vector = 0; vector < 256; ++vector) {
      if (test_bit(*map, static_cast<uint8_t>(vector))) text += fmt::format(" {:#x}", vector);
    }
    text += "\n";
  }
  const std::string deadline = deadline_ ? fmt::format("{}", deadline_->value) : "none";
  text += fmt::format("  timer: initial {} divide {} deadline {}\n", initial_count_, divider(),
                      deadline);
  return text;
}

std::string IoApic::dump() const {
  std::string text = "I/O APIC:\n";
  for (unsigned pin = 0; pin < kPins; ++pin) {
    const bool level = (levels_ >> pin) & 1;
    if (redirection_[pin] == kMasked && !level) continue;
    text += fmt::format("  pin {}: {:#018x}{}\n", pin, redirection_[pin], level ? " (high)" : "");
  }
  return text;
}

std::string Pic::dump() const {
  std::string text;
  for (const Chip& chip : chips_) {
    text += fmt::format("8259 {}: base {:#x} imr {:#04x} irr {:#04x} isr {:#04x} elcr {:#04x}\n",
                        chip.is_master ? "first" : "second", chip.base, chip.imr, chip.irr,
                        chip.isr, chip.elcr);
  }
  return text;
}

std::string Virtqueue::dump() const {
  if (!enabled_) return "off";
  return fmt::format("size {} available {} used {} at {:#x} {:#x} {:#x}", size_, last_available_,
                     used_, descriptors, driver_area, device_area);
}

std::string VirtioPci::dump() const {
  std::string text =
      fmt::format("status {:#x} features {:#x} isr {:#x}{}{}\n", status_, driver_features_, isr_,
                  failure_ != nullptr ? " failed: " : "", failure_ != nullptr ? failure_ : "");
  for (size_t i = 0; i < queues_.size(); ++i)
    text += fmt::format("  queue {}: {}\n", i, queues_[i].dump());
  return text;
}

std::string Platform::dump() const {
  const Parts& p = *parts_;
  const PowerStatus power = p.power();
  std::string text = fmt::format("power: {} {:#x}\n", power_name(power.state), power.debug_code);
  text += p.apic.dump() + p.io_apic.dump() + p.pic.dump();
  for (const auto& [name, device] : p.virtio) text += fmt::format("{}: {}", name, device->dump());
  for (const auto& disk : p.disks) {
    for (const DiskRequest& request : disk->in_flight())
      text +=
          fmt::format("disk{} request {}: op {} at {} length {}\n", request.device, request.request,
                      static_cast<int>(request.op), request.offset, request.length);
  }
  const PlatformCounters c = counters();
  text += fmt::format(
      "frames dropped {}, console bytes dropped {}, absent port accesses {}, absent memory "
      "accesses {}, failed devices {}\n",
      c.frames_dropped, c.console_bytes_dropped, c.absent_pio, c.absent_mmio, c.failed_devices);
  return text;
}

}  // namespace us::hv
