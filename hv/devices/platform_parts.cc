#include "hv/devices/platform_parts.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/check.h"

namespace us::hv {

namespace {

constexpr unsigned kIoApicTimerPin = 2;  // the MADT's override of ISA interrupt 0

}  // namespace

Platform::Parts::Parts(const PlatformConfig& c, GuestMemory& guest_memory, TimeSource& time,
                       OutputSink& sink)
    : config(c),
      memory(guest_memory),
      output(sink),
      apic(time, c.apic_hz),
      io_apic(apic),
      pit(time, IrqLine(*this, kIrqTimer)),
      serial(IrqLine(*this, kIrqSerial),
             [this](uint8_t byte) { output.console(0, ByteSpan(&byte, 1)); }),
      rtc(time, IrqLine(*this, kIrqRtc), c.wall_clock_start),
      acpi_pm(time, IrqLine(*this, kIrqSci)),
      board(c.debug_exit),
      pci([this] { map_memory(); }),
      timers{&apic, &pit, &rtc, &acpi_pm} {
  apic.set_eoi_listener(&io_apic);
  init_pics();
  if (config.debug_exit) test_device = std::make_unique<TestDevice>(*this);
  plug_virtio();
  map_ports();
  map_memory();
}

// As firmware leaves them: vectors 0x08 and 0x70, everything masked, the SCI and PCI interrupts
// level triggered.
void Platform::Parts::init_pics() {
  constexpr std::array<std::pair<uint16_t, uint8_t>, 11> kWrites = {{{0x20, 0x11},
                                                                     {0x21, 0x08},
                                                                     {0x21, 0x04},
                                                                     {0x21, 0x01},
                                                                     {0x21, 0xff},
                                                                     {0xa0, 0x11},
                                                                     {0xa1, 0x70},
                                                                     {0xa1, 0x02},
                                                                     {0xa1, 0x01},
                                                                     {0xa1, 0xff},
                                                                     {0x4d1, 0x0e}}};
  static_assert(kIrqSci == 9 && kIrqPciPic0 == 10 && kIrqPciPic1 == 11);
  for (const auto& [port, value] : kWrites) pic.pio_write(port, 1, value);
}

// Slots in this order: disks, network cards, entropy, console.
void Platform::Parts::plug_virtio() {
  US_CHECK(config.disks.size() <= PlatformConfig::kDevicesMax &&
           config.nets.size() <= PlatformConfig::kDevicesMax);
  const VirtioContext context{memory, *this, *this};
  const auto irq = [this] { return kGsiPciBase + pci.next_slot() % 4; };  // INTA#, as _PRT says
  const auto add = [this](std::string name, VirtioPci& device) {
    pci.plug(device);
    virtio.emplace_back(std::move(name), &device);
  };
  for (const DiskConfig& disk : config.disks) {
    const auto index = static_cast<uint8_t>(disks.size());
    disks.push_back(std::make_unique<VirtioBlock>(context, output, index, disk, irq()));
    add(fmt::format("disk{}", index), *disks.back());
  }
  for (const NetConfig& net : config.nets) {
    const auto index = static_cast<uint8_t>(nets.size());
    nets.push_back(std::make_unique<VirtioNet>(context, output, index, net.mac, irq()));
    add(fmt::format("net{}", index), *nets.back());
  }
  if (config.virtio_rng) {
    rng = std::make_unique<VirtioRng>(context, config.rng_seed, irq());
    add("rng", *rng);
  }
  if (config.virtio_console) {
    console = std::make_unique<VirtioConsole>(context, output, 1, irq());
    add("console", *console);
  }
}

void Platform::Parts::map_ports() {
  for (const auto& [first, last] :
       {std::pair<uint16_t, uint16_t>{0x20, 0x21}, {0xa0, 0xa1}, {0x4d0, 0x4d1}})
    ports.add({first, last, 1, &pic});
  ports.add({0x40, 0x43, 1, &pit});
  ports.add({0x61, 0x61, 1, &pit});
  ports.add({0x70, 0x71, 1, &rtc});
  ports.add({kPortSerial, kPortSerial + 7, 1, &serial});
  ports.add({kPortPm1Event, kPortPm1Event + 3, 4, &acpi_pm});
  ports.add({kPortPm1Control, kPortPm1Control + 1, 2, &acpi_pm});
  ports.add({kPortPmTimer, kPortPmTimer + 3, 4, &acpi_pm});
  for (uint16_t port : {uint16_t{0x60}, uint16_t{0x64}, uint16_t{0x80}, uint16_t{0x92}, kPortReset})
    ports.add({port, port, 1, &board});
  ports.add({0xcf8, 0xcf8, 4, &pci});  // 0xcf9 is the reset register
  ports.add({0xcfa, 0xcff, 4, &pci});
  if (!config.debug_exit) return;
  ports.add({kPortDebugExit, kPortDebugExit + 3, 4, &board});
  ports.add({TestDevice::kPortData, TestDevice::kPortFlush + 3, 4, test_device.get()});
  ports.add({TestDevice::kPortByte, TestDevice::kPortByte, 1, test_device.get()});
  ports.add({TestDevice::kPortLines, TestDevice::kPortLines + TestDevice::kLines - 1, 4,
             test_device.get()});
}

void Platform::Parts::map_memory() {
  addresses.clear();
  addresses.add({kIoApicBase, kIoApicBase + IoApic::kMmioSize - 1, &io_apic});
  if (test_device != nullptr)
    addresses.add({TestDevice::kMemoryBase, TestDevice::kMemoryBase + TestDevice::kMemorySize - 1,
                   test_device.get()});
  for (const PciFunction::BarRange& range : pci.ranges())
    addresses.add({range.base, range.base + range.size - 1, range.device});
}

void Platform::Parts::set_irq(unsigned line, bool level) {
  if (line < 16) {
    pic.set_irq(line, level);
    io_apic.set_pin(line == kIrqTimer ? kIoApicTimerPin : line, level);
  } else {
    io_apic.set_pin(line, level);
    const unsigned index = line - kGsiPciBase;
    if (index >= 4) return;
    const auto bit = static_cast<uint8_t>(1u << index);
    pci_lines = static_cast<uint8_t>(level ? pci_lines | bit : pci_lines & ~bit);
    pic.set_irq(kIrqPciPic0, (pci_lines & 0b0101) != 0);
    pic.set_irq(kIrqPciPic1, (pci_lines & 0b1010) != 0);
  }
  update_pic_output();
}

// SDM 3A 11.11.1 and 11.11.2.
void Platform::Parts::signal_msi(uint64_t address, uint32_t data) {
  if ((address >> 20) != 0xfee) return;  // a write to anywhere else reaches nobody
  ApicMessage message;
  message.destination = static_cast<uint32_t>(address >> 12) & 0xff;
  message.logical = (address & 4) != 0;
  message.mode = static_cast<DeliveryMode>((data >> 8) & 7);
  message.vector = static_cast<uint8_t>(data);
  message.level = (data & 0x8000) != 0;
  apic.deliver(message);
}

PowerStatus Platform::Parts::power() const {
  if (board.debug_code()) return {PowerState::kDebugExit, *board.debug_code()};
  if (acpi_pm.powered_off()) return {PowerState::kPoweredOff};
  if (board.reset_requested()) return {PowerState::kResetRequested};
  return {};
}

uint64_t Platform::Parts::next_deadline() const {
  uint64_t soonest = kNever;
  for (const TimerDevice* timer : timers) {
    const std::optional<GuestTsc> deadline = timer->next_deadline();
    if (deadline) soonest = std::min(soonest, deadline->value);
  }
  return soonest;
}

void Platform::Parts::settle() {
  const bool pending = interrupt_pending();
  const bool nmi = apic.nmi_pending();
  const bool running = power().state == PowerState::kRunning;
  if ((pending && !was_pending) || (nmi && !was_nmi) || (!running && was_running)) attention = true;
  was_pending = pending;
  was_nmi = nmi;
  was_running = running;
  const uint64_t deadline = next_deadline();
  if (deadline < reported_deadline) {
    attention = true;
    reported_deadline = deadline;
  }
}

std::vector<Platform::Parts::Named> Platform::Parts::named_devices() {
  std::vector<Named> named = {{"local-apic", &apic}, {"io-apic", &io_apic}, {"pic", &pic},
                              {"pit", &pit},         {"serial", &serial},   {"rtc", &rtc},
                              {"acpi-pm", &acpi_pm}, {"board", &board},     {"pci", &pci}};
  if (test_device != nullptr) named.push_back({"test-device", test_device.get()});
  for (const auto& [name, device] : virtio) named.push_back({name, device});
  return named;
}

}  // namespace us::hv
