#include "hv/devices/acpi_tables.h"

#include <string_view>

#include "base/check.h"
#include "hv/devices/layout.h"
#include "hv/devices/rtc.h"

namespace us::hv {

namespace {

constexpr std::string_view kOemId = "UNDRST";
constexpr std::string_view kOemTableId = "UNDRSTDY";

void put_text(ByteWriter& out, std::string_view text) {
  for (char c : text) out.put(static_cast<uint8_t>(c));
}

void put_zeros(ByteWriter& out, size_t count) {
  for (size_t i = 0; i < count; ++i) out.put<uint8_t>(0);
}

void set_checksum(Bytes& table, size_t at, size_t length) {
  uint8_t sum = 0;
  for (size_t i = 0; i < length; ++i) sum = static_cast<uint8_t>(sum + table[i]);
  table[at] = static_cast<uint8_t>(table[at] - sum);
}

// Header and body, length and checksum filled in. ACPI 6.4 table 5.4.
Bytes table(std::string_view signature, uint8_t revision, ByteSpan body) {
  ByteWriter out;
  put_text(out, signature);
  out.put(static_cast<uint32_t>(36 + body.size()));
  out.put(revision);
  out.put<uint8_t>(0);  // checksum
  put_text(out, kOemId);
  put_text(out, kOemTableId);
  out.put<uint32_t>(1);
  put_text(out, "UNDR");
  out.put<uint32_t>(1);
  out.put_bytes(body);
  Bytes bytes = out.take();
  set_checksum(bytes, 9, bytes.size());
  return bytes;
}

// An I/O space generic address. ACPI 6.4 table 5.1.
void put_port(ByteWriter& out, uint16_t port, uint8_t bits, uint8_t access) {
  out.put<uint8_t>(1);
  out.put(bits);
  out.put<uint8_t>(0);
  out.put(access);
  out.put<uint64_t>(port);
}

// ACPI 6.4 table 5.9 and 5.10.
constexpr uint16_t kBootArch = 1u << 0 | 1u << 2;  // legacy devices; no VGA; no 8042
constexpr uint32_t kFadtFlags = 1u << 0            // WBINVD
                                | 1u << 2          // C1 on the processor
                                | 1u << 5          // no fixed sleep button
                                | 1u << 6          // RTC wakes are not in the fixed registers
                                | 1u << 8          // the PM timer has 32 bits
                                | 1u << 10;        // RESET_REG works
constexpr uint8_t kResetValue = 6;

Bytes fadt(uint32_t facs, uint32_t dsdt) {
  ByteWriter out;
  out.put(facs);
  out.put(dsdt);
  put_zeros(out, 2);  // reserved, profile unspecified
  out.put(static_cast<uint16_t>(kIrqSci));
  put_zeros(out, 8);  // no SMI command port: always in ACPI mode
  for (uint32_t port : {kPortPm1Event, uint16_t{0}, kPortPm1Control, uint16_t{0}, uint16_t{0},
                        kPortPmTimer, uint16_t{0}, uint16_t{0}})
    out.put(port);
  for (uint8_t length : {4, 2, 0, 4, 0, 0, 0, 0}) out.put(length);
  out.put<uint16_t>(0xffff);  // C2 and C3 latencies that say: none
  out.put<uint16_t>(0xffff);
  put_zeros(out, 8);  // flush and duty fields; no day or month alarm
  out.put(Rtc::kCenturyIndex);
  out.put(kBootArch);
  put_zeros(out, 1);
  out.put(kFadtFlags);
  put_port(out, kPortReset, 8, 1);
  out.put(kResetValue);
  put_zeros(out, 2);
  out.put<uint8_t>(4);   // minor revision
  out.put<uint64_t>(0);  // the FACS is given above
  out.put<uint64_t>(dsdt);
  put_port(out, kPortPm1Event, 32, 2);
  put_zeros(out, 12);
  put_port(out, kPortPm1Control, 16, 2);
  put_zeros(out, 24);
  put_port(out, kPortPmTimer, 32, 3);
  put_zeros(out, 4 * 12);  // GPE blocks, sleep control and status: none
  out.put<uint64_t>(0);    // hypervisor vendor
  US_CHECK(out.size() == 276 - 36, "{}", out.size());
  return table("FACP", 6, out.bytes());
}

// ACPI 6.4 table 5.17 to 5.24.
Bytes madt() {
  ByteWriter out;
  out.put(static_cast<uint32_t>(kLocalApicBase));
  out.put<uint32_t>(1);                              // there is an 8259 pair, too
  for (uint8_t byte : {0, 8, 0, 0}) out.put(byte);   // local APIC: processor 0, APIC ID 0
  out.put<uint32_t>(1);                              // enabled
  for (uint8_t byte : {1, 12, 0, 0}) out.put(byte);  // I/O APIC 0
  out.put(static_cast<uint32_t>(kIoApicBase));
  out.put<uint32_t>(0);                              // from GSI 0 on
  for (uint8_t byte : {2, 10, 0, 0}) out.put(byte);  // ISA interrupt 0 (timer) is at pin 2
  out.put<uint32_t>(2);
  out.put<uint16_t>(0);
  out.put<uint8_t>(2);  // the SCI: level triggered, active high
  out.put<uint8_t>(10);
  out.put<uint8_t>(0);
  out.put(static_cast<uint8_t>(kIrqSci));
  out.put<uint32_t>(kIrqSci);
  out.put<uint16_t>(0x000d);
  for (uint8_t byte : {4, 6, 0xff, 0, 0, 1}) out.put(byte);  // NMI at LINT1 of every processor
  return table("APIC", 5, out.bytes());
}

Bytes facs() {
  ByteWriter out;
  put_text(out, "FACS");
  out.put<uint32_t>(64);
  put_zeros(out, 24);
  out.put<uint8_t>(2);  // version
  put_zeros(out, 31);
  return out.take();
}

Bytes rsdp(uint32_t rsdt, uint64_t xsdt) {
  ByteWriter out;
  put_text(out, "RSD PTR ");
  out.put<uint8_t>(0);
  put_text(out, kOemId);
  out.put<uint8_t>(2);
  out.put(rsdt);
  out.put<uint32_t>(36);
  out.put(xsdt);
  out.put<uint32_t>(0);  // extended checksum, reserved
  Bytes bytes = out.take();
  set_checksum(bytes, 8, 20);
  set_checksum(bytes, 32, 36);
  return bytes;
}

}  // namespace

AcpiTables build_acpi_tables(GuestPhys base) {
  AcpiTables tables{.base = base, .rsdp = base, .bytes = Bytes(64)};
  const auto place = [&](const Bytes& bytes) {
    const size_t at = (tables.bytes.size() + 63) & ~size_t{63};  // the FACS needs 64
    tables.bytes.resize(at);
    tables.bytes.insert(tables.bytes.end(), bytes.begin(), bytes.end());
    return static_cast<uint32_t>(base.value + at);
  };
  const uint32_t facs_at = place(facs());
  const uint32_t dsdt_at = place(table("DSDT", 2, build_dsdt_aml()));
  const uint32_t fadt_at = place(fadt(facs_at, dsdt_at));
  const uint32_t madt_at = place(madt());
  ByteWriter narrow, wide;
  for (uint32_t at : {fadt_at, madt_at}) {
    narrow.put(at);
    wide.put(static_cast<uint64_t>(at));
  }
  const uint32_t rsdt_at = place(table("RSDT", 1, narrow.bytes()));
  const uint32_t xsdt_at = place(table("XSDT", 1, wide.bytes()));
  const Bytes root = rsdp(rsdt_at, xsdt_at);
  std::copy(root.begin(), root.end(), tables.bytes.begin());
  US_CHECK(tables.bytes.size() <= kAcpiTablesSize);
  return tables;
}

}  // namespace us::hv
