// The DSDT's definition block.
#include "hv/devices/acpi_pm.h"
#include "hv/devices/acpi_tables.h"
#include "hv/devices/aml.h"
#include "hv/devices/layout.h"

namespace us::hv {

namespace {

constexpr uint8_t kArg0 = 0x68;
constexpr uint8_t kStore = 0x70;

// --- Resource descriptors, ACPI 6.4 chapter 6.4.

void io_ports(ByteWriter& out, uint16_t first, uint8_t count) {
  out.put<uint8_t>(0x47);  // I/O port descriptor
  out.put<uint8_t>(1);     // decodes 16 bits
  out.put(first);
  out.put(first);
  out.put<uint8_t>(1);
  out.put(count);
}

void irq(ByteWriter& out, unsigned number) {
  out.put<uint8_t>(0x22);  // IRQ descriptor without flags: edge, active high
  out.put(static_cast<uint16_t>(1u << number));
}

constexpr uint8_t kFixedRange = 0x0c;  // minimum and maximum are fixed

void word_range(ByteWriter& out, uint8_t type, uint8_t flags, uint16_t first, uint16_t last) {
  out.put<uint8_t>(0x88);  // word address space descriptor
  out.put<uint16_t>(13);
  out.put(type);
  out.put(kFixedRange);
  out.put(flags);
  out.put<uint16_t>(0);  // granularity
  out.put(first);
  out.put(last);
  out.put<uint16_t>(0);  // translation
  out.put(static_cast<uint16_t>(last - first + 1));
}

void memory_range(ByteWriter& out, uint32_t first, uint32_t size) {
  out.put<uint8_t>(0x87);  // double word address space descriptor
  out.put<uint16_t>(23);
  out.put<uint8_t>(0);  // memory
  out.put(kFixedRange);
  out.put<uint8_t>(1);   // read-write, not cacheable
  out.put<uint32_t>(0);  // granularity
  out.put(first);
  out.put(first + size - 1);
  out.put<uint32_t>(0);  // translation
  out.put(size);
}

Aml resources(ByteWriter& out) {
  out.put<uint8_t>(0x79);  // end tag; a checksum of 0 is not checked
  out.put<uint8_t>(0);
  return Aml().buffer(out.bytes());
}

// --- The PCI root bridge

Aml root_bridge_resources() {
  ByteWriter out;
  word_range(out, 2, 0, 0, 0);  // bus 0
  io_ports(out, 0xcf8, 8);
  word_range(out, 1, 3, 0x0000, 0x0cf7);
  word_range(out, 1, 3, 0x0d00, 0xffff);
  memory_range(out, static_cast<uint32_t>(kPciWindowBase), static_cast<uint32_t>(kPciWindowSize));
  return resources(out);
}

// Device d's pin p ends at line (d + p) % 4. ACPI 6.4 6.2.13.
Aml interrupt_routing(bool apic) {
  std::vector<Aml> entries;
  for (uint32_t slot = 0; slot < 32; ++slot) {
    for (uint32_t pin = 0; pin < 4; ++pin) {
      const uint32_t line = (slot + pin) % 4;
      const uint32_t pic = (line & 1) != 0 ? kIrqPciPic1 : kIrqPciPic0;
      entries.push_back(
          Aml().package({Aml::number(slot << 16 | 0xffff), Aml::number(pin), Aml::number(0),
                         Aml::number(apic ? kGsiPciBase + line : pic)}));
    }
  }
  return Aml().package(entries);
}

Aml root_bridge() {
  Aml body;
  body.name("_HID", Aml().eisa_id("PNP0A03"));
  body.name("_UID", Aml::number(0));
  body.name("_BBN", Aml::number(0));
  body.name("_CRS", root_bridge_resources());
  body.name("PRTA", interrupt_routing(true));
  body.name("PRTP", interrupt_routing(false));
  Aml method;
  method.if_true(Aml().name_string("PICM"), Aml().return_value(Aml().name_string("PRTA")));
  method.return_value(Aml().name_string("PRTP"));
  body.method("_PRT", 0, method);
  return Aml().device("PCI0", body);
}

Aml legacy_device(std::string_view name, std::string_view id, uint16_t port, uint8_t count,
                  unsigned interrupt) {
  ByteWriter out;
  io_ports(out, port, count);
  irq(out, interrupt);
  Aml body;
  body.name("_HID", Aml().eisa_id(id));
  body.name("_UID", Aml::number(1));
  body.name("_STA", Aml::number(0xf));
  body.name("_CRS", resources(out));
  return Aml().device(name, body);
}

}  // namespace

Bytes build_dsdt_aml() {
  Aml aml;
  aml.name("PICM", Aml::number(0));
  // \_PIC(1): the operating system uses the I/O APIC. ACPI 6.4 5.8.1.
  aml.method("_PIC", 1, Aml().op(kStore).op(kArg0).name_string("PICM"));
  aml.name("_S5_", Aml().package({Aml::number(AcpiPm::kSleepTypeS5), Aml::number(0), Aml::number(0),
                                  Aml::number(0)}));
  Aml system;
  system.add(root_bridge());
  system.add(legacy_device("COM1", "PNP0501", kPortSerial, 8, kIrqSerial));
  system.add(legacy_device("RTC_", "PNP0B00", 0x70, 2, kIrqRtc));
  aml.scope("\\_SB_", system);
  return aml.bytes();
}

}  // namespace us::hv
