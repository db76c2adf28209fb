// The ACPI tables that describe this machine. ACPI 6.4 chapter 5.2.
#pragma once

#include "base/bytes.h"
#include "base/types.h"

namespace us::hv {

struct AcpiTables {
  GuestPhys base;  // where `bytes` go
  GuestPhys rsdp;  // the root pointer inside them
  Bytes bytes;
};

// RSDP, RSDT, XSDT, FADT, FACS, MADT and DSDT, laid out from `base` (a multiple of 64) on.
AcpiTables build_acpi_tables(GuestPhys base);

// The definition block alone: PCI root bridge, COM1, RTC, \_S5, \_PIC.
Bytes build_dsdt_aml();

}  // namespace us::hv
