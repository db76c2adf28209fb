// What the loaders of the individual formats share. Internal to hv/boot.
#pragma once

#include "base/bytes.h"
#include "base/result.h"
#include "hv/boot/boot.h"
#include "hv/boot/elf.h"
#include "hv/boot/placement.h"

namespace us::hv {

struct LoadContext {
  GuestMemory& memory;
  const BootConfig& config;
  ByteSpan initrd;  // empty: none
};

// One loader a format; each places the image and its information structures.
Result<BootState> load_bzimage(LoadContext& context, ByteSpan image);
Result<BootState> load_linux64_elf(LoadContext& context, const ElfImage& elf);
Result<BootState> load_pvh(LoadContext& context, const ElfImage& elf);
Result<BootState> load_multiboot(LoadContext& context, ByteSpan image);

bool looks_like_bzimage(ByteSpan image);
bool looks_like_multiboot(ByteSpan image);

// Puts the command line, zero terminated, at kBootCmdline. BOOT-012 when it is longer than
// `longest` bytes or holds a zero byte.
Status place_cmdline(LoadContext& context, const std::string& cmdline, uint64_t longest);

// BOOT-014 unless `entry` is an address of the image.
Status check_entry(const Placement& placement, uint64_t entry, const std::string& name);

// Writes the GDT (and, for long mode, identity page tables of the low 4 GiB) and gives the state
// that goes with them; the caller sets what its protocol wants in registers.
BootState long_mode_state(GuestMemory& memory, uint64_t rip);
BootState protected_mode_state(GuestMemory& memory, uint64_t rip);

}  // namespace us::hv
