// Loads a kernel into a fresh machine's memory and says how to enter it. Understood are:
//   bzImage      64-bit kernels; the payload is unpacked here, not in the guest, and the vmlinux in
//                it entered at startup_64 by the 64-bit protocol (Linux Documentation/x86/boot.rst)
//   ELF vmlinux  with a PVH note by the PVH protocol, otherwise by the 64-bit protocol
//   Multiboot 1  32-bit or 64-bit ELF carrying a Multiboot header, or its a.out-kludge form
//
// Every byte of every file is untrusted. Errors (all exit code 2):
//   BOOT-001 file cannot be read           BOOT-002 file empty or too large
//   BOOT-003 not a kernel image            BOOT-004 image cut short
//   BOOT-005 kernel without 64-bit entry   BOOT-006 unknown payload compression
//   BOOT-007 payload broken                BOOT-008 malformed ELF
//   BOOT-009 segment outside memory        BOOT-010 segments overlap, or lie below 1 MiB
//   BOOT-011 initrd does not fit           BOOT-012 bad command line
//   BOOT-013 bad Multiboot header          BOOT-014 entry point outside the image
//   BOOT-015 protocol not offered          BOOT-016 too little memory
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "hv/boot/boot_state.h"
#include "hv/core/memory.h"

namespace us::hv {

enum class BootChoice : uint8_t { kAuto, kLinux64, kPvh, kMultiboot1 };

struct BootConfig {
  std::string kernel = {};                // path
  std::string initrd = {};                // path, or empty for none
  std::string cmdline = {};               // without a terminating zero
  uint64_t acpi_rsdp = 0;                 // guest physical address of the RSDP, or 0 for none
  BootChoice choice = BootChoice::kAuto;  // bzImage and ELF only: insist on one protocol
};

// Reads the files and loads them. On an error the memory's content is unspecified.
Result<BootState> load_kernel(GuestMemory& memory, const BootConfig& config);

// The same from bytes already read; config.kernel and config.initrd are names for messages only.
Result<BootState> load_kernel_bytes(GuestMemory& memory, ByteSpan kernel, ByteSpan initrd,
                                    const BootConfig& config);

}  // namespace us::hv
