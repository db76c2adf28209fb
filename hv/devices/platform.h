// Every device of the PC behind one face. The machine forwards the vCPU's accesses and its inputs
// here; what leaves goes to the OutputSink. Owned by the vCPU thread; nothing here locks.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "hv/core/input_output.h"
#include "hv/core/memory.h"
#include "hv/devices/device.h"
#include "hv/devices/layout.h"

namespace us::hv {

struct DiskConfig {
  uint64_t size_bytes = 0;  // whole sectors of 512 count; a rest is not shown to the guest
  bool read_only = false;
  std::string serial;  // at most 20 bytes are shown
};

struct NetConfig {
  std::array<uint8_t, 6> mac = {};
};

// What a machine is made of. Equal configurations give equal machines: all of this belongs into a
// recording's or snapshot's description.
struct PlatformConfig {
  std::vector<DiskConfig> disks;  // at most kDevicesMax
  std::vector<NetConfig> nets;    // at most kDevicesMax
  std::array<uint8_t, 32> rng_seed = {};
  bool virtio_rng = true;
  bool virtio_console = true;
  // For test kernels: port 0xf4 ends the run as QEMU's isa-debug-exit does, and QEMU's pc-testdev
  // answers at its ports (hv/devices/test_device.h).
  bool debug_exit = false;
  int64_t wall_clock_start = 1'700'000'000;  // seconds since 1970 (UTC) when the clock reads 0
  uint64_t apic_hz = kCrystalHz;             // local APIC timer before its divider

  static constexpr size_t kDevicesMax = 8;
};

// The configuration as bytes; hv/machine_config.h reads them back.
void encode(const PlatformConfig& config, ByteWriter& out);

enum class PowerState : uint8_t {
  kRunning = 0,
  kPoweredOff = 1,
  kResetRequested = 2,
  kDebugExit = 3,
};

struct PowerStatus {
  PowerState state = PowerState::kRunning;
  uint32_t debug_code = 0;  // kDebugExit only: (value written << 1) | 1, QEMU's exit code
};

// Counts of things that did not go as a well-behaved guest and world would have them.
struct PlatformCounters {
  uint64_t frames_dropped = 0;  // network frames that found the receive FIFO full
  uint64_t console_bytes_dropped = 0;
  uint64_t absent_pio = 0;  // accesses nobody answered
  uint64_t absent_mmio = 0;
  uint64_t failed_devices = 0;  // virtio devices in the failed state (DEVICE_NEEDS_RESET)
};

class Platform {
 public:
  // All references outlive the platform. The devices are in their power-on state, PCI BARs already
  // assigned, the local APIC in virtual-wire mode as firmware would leave it.
  Platform(const PlatformConfig& config, GuestMemory& memory, TimeSource& time, OutputSink& output);
  ~Platform();
  Platform(const Platform&) = delete;
  Platform& operator=(const Platform&) = delete;

  // --- The vCPU's accesses; contracts as in hv/core/bus.h.
  uint32_t pio_read(uint16_t port, unsigned size);
  void pio_write(uint16_t port, unsigned size, uint32_t value);
  uint64_t mmio_read(GuestPhys address, unsigned size);
  void mmio_write(GuestPhys address, unsigned size, uint64_t value);
  bool msr_read(uint32_t index, uint64_t& value);
  bool msr_write(uint32_t index, uint64_t value);
  uint8_t task_priority();  // CR8
  void set_task_priority(uint8_t priority);
  // True once after a call that made an interrupt or NMI pending, changed the power state, or
  // moved next_deadline() before what it last returned.
  bool take_attention();
  // The guest's TSC offset changed (a write of MSR 0x10): TSC deadlines move with it.
  void guest_offset_changed();

  // --- Interrupts towards the vCPU. Ask before every run: attention is raised only when pending
  // goes from false to true.
  bool interrupt_pending();
  // The vector to deliver now; moves it into service. Empty when nothing is pending. Call exactly
  // once per delivered interrupt.
  std::optional<uint8_t> acknowledge_interrupt();
  bool nmi_pending() const;
  bool take_nmi();  // clears it

  // --- Time. The device time at which advance() next has an effect.
  std::optional<GuestTsc> next_deadline();
  // Fires every timer due at or before `now`, which is the time source's present reading.
  void advance(GuestTsc now);

  // --- Inputs (hv/core/input_output.h). A device index that does not exist, or a request that is
  // not in flight, is ignored.
  void frame(uint8_t device, ByteSpan frame);
  void disk_done(const DiskDoneInput& done);
  void console_input(uint8_t device, ByteSpan bytes);
  void power_button();
  void nmi();

  PowerStatus power() const;

  // --- Boot. Writes the ACPI tables into guest RAM at kAcpiTablesBase; returns the RSDP's address.
  GuestPhys install_acpi_tables();

  // --- State. save() writes all device state; load() needs a platform of the same configuration.
  // Errors: DEV-001 the state is of another configuration or version, DEV-002 it is damaged.
  void save(ByteWriter& out) const;
  Status load(ByteReader& in);
  // The bytes that a state digest covers.
  void digest_state(ByteWriter& out) const;
  // Disk requests submitted and not yet answered, in order: to be submitted again by whoever takes
  // over the outputs (a restored snapshot, a secondary that goes live).
  std::vector<DiskRequest> disk_requests_in_flight() const;
  // Many lines for people.
  std::string dump() const;
  PlatformCounters counters() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace us::hv
