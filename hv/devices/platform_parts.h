// The inside of Platform: the devices, and how their lines are wired. Private to the platform.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "hv/devices/acpi_pm.h"
#include "hv/devices/board_ports.h"
#include "hv/devices/dispatch.h"
#include "hv/devices/io_apic.h"
#include "hv/devices/local_apic.h"
#include "hv/devices/pci.h"
#include "hv/devices/pic.h"
#include "hv/devices/pit.h"
#include "hv/devices/platform.h"
#include "hv/devices/rtc.h"
#include "hv/devices/serial.h"
#include "hv/devices/test_device.h"
#include "hv/devices/virtio_block.h"
#include "hv/devices/virtio_console.h"
#include "hv/devices/virtio_net.h"
#include "hv/devices/virtio_rng.h"

namespace us::hv {

struct Platform::Parts final : InterruptSink, MsiSink {
  Parts(const PlatformConfig& config, GuestMemory& memory, TimeSource& time, OutputSink& output);

  void init_pics();
  void plug_virtio();
  void map_ports();
  void map_memory();  // again whenever a BAR or the local APIC moved

  // InterruptSink, MsiSink.
  void set_irq(unsigned line, bool level) override;
  void signal_msi(uint64_t address, uint32_t data) override;

  void update_pic_output() { apic.set_lint0(pic.output()); }
  bool extint_pending() const {
    return apic.extint_pending() || (io_apic.passes_extint() && pic.output());
  }
  bool interrupt_pending() const { return apic.has_pending() || extint_pending(); }
  PowerStatus power() const;
  uint64_t next_deadline() const;  // kNever: none
  // After anything that may have changed what the vCPU has to know.
  void settle();

  // Every device with its name, in the order of saving.
  struct Named {
    std::string name;
    Device* device;
  };
  std::vector<Named> named_devices();

  static constexpr uint64_t kNever = ~0ull;

  const PlatformConfig config;
  GuestMemory& memory;
  OutputSink& output;
  PlatformCounters counters;

  LocalApic apic;
  IoApic io_apic;
  Pic pic;
  Pit pit;
  Serial serial;
  Rtc rtc;
  AcpiPm acpi_pm;
  BoardPorts board;
  std::unique_ptr<TestDevice> test_device;  // with the debug-exit port only
  PciHost pci;
  std::vector<std::unique_ptr<VirtioBlock>> disks;
  std::vector<std::unique_ptr<VirtioNet>> nets;
  std::unique_ptr<VirtioRng> rng;                          // absent when not configured
  std::unique_ptr<VirtioConsole> console;                  // absent when not configured
  std::vector<std::pair<std::string, VirtioPci*>> virtio;  // all of them, by slot

  std::array<TimerDevice*, 4> timers;
  PioMap ports;
  MmioMap addresses;
  uint8_t pci_lines = 0;  // levels of the four INTx lines

  // What the machine was told last; not guest state.
  bool attention = false;
  bool was_pending = false;
  bool was_nmi = false;
  bool was_running = true;
  uint64_t reported_deadline = kNever;
};

}  // namespace us::hv
