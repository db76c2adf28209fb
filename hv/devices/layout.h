// Where the PC's fixed parts lie in guest physical memory and port space. Boot code builds the
// memory map from these; devices and ACPI tables agree by using them.
#pragma once

#include <cstdint>

namespace us::hv {

// ACPI tables: inside the BIOS area that every operating system scans for the RSDP (ACPI 6.4
// 5.2.5.1). Boot code reports [kAcpiTablesBase, +kAcpiTablesSize) as reserved, not as free RAM.
constexpr uint64_t kAcpiTablesBase = 0xe'0000;
constexpr uint64_t kAcpiTablesSize = 0x1'0000;

// Where PCI memory BARs live; declared by the root bridge's _CRS. RAM ends below it
// (GuestMemory::kLowLimit).
constexpr uint64_t kPciWindowBase = 0xd000'0000;
constexpr uint64_t kPciWindowSize = 0x2000'0000;  // to 0xefff'ffff

constexpr uint64_t kIoApicBase = 0xfec0'0000;
constexpr uint64_t kLocalApicBase = 0xfee0'0000;  // at reset; the guest may move it

// ISA interrupts and I/O APIC pins.
constexpr unsigned kIrqTimer = 0;   // pin 2 of the I/O APIC, by the MADT's override
constexpr unsigned kIrqSerial = 4;  // COM1
constexpr unsigned kIrqRtc = 8;
constexpr unsigned kIrqSci = 9;       // level triggered, active high
constexpr unsigned kIrqPciPic0 = 10;  // INTx in 8259 mode: even lines
constexpr unsigned kIrqPciPic1 = 11;  // odd lines
constexpr unsigned kGsiPciBase = 16;  // INTx in APIC mode: 16 + (device + pin) % 4

// Ports.
constexpr uint16_t kPortSerial = 0x3f8;
constexpr uint16_t kPortPm1Event = 0x600;    // PM1a_STS, PM1a_EN
constexpr uint16_t kPortPm1Control = 0x604;  // PM1a_CNT
constexpr uint16_t kPortPmTimer = 0x608;
constexpr uint16_t kPortReset = 0xcf9;
constexpr uint16_t kPortDebugExit = 0xf4;

}  // namespace us::hv
