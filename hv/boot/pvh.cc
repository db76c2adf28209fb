// The x86/HVM direct boot ABI ("PVH"): Xen docs/misc/pvh.pandoc and
// public/arch-x86/hvm/start_info.h.
#include <fmt/format.h>

#include "hv/boot/boot_errors.h"
#include "hv/boot/boot_params.h"
#include "hv/boot/layout.h"

namespace us::hv {

namespace {

constexpr uint32_t kStartMagic = 0x336ec578;
constexpr uint32_t kStartVersion = 1;  // the first with a memory map
constexpr uint64_t kStartInfoSize = 56;

void put_memory_map(ByteWriter& out, const GuestMemory& memory) {
  for (const MemoryRange& range : memory_map(memory)) {
    out.put(range.base);
    out.put(range.size);
    out.put(static_cast<uint32_t>(range.type));
    out.put(uint32_t{0});
  }
}

// hvm_start_info, and behind it the one entry of the module list.
ByteWriter start_info(const LoadContext& context, uint64_t initrd) {
  ByteWriter out;
  out.put(kStartMagic);
  out.put(kStartVersion);
  out.put(uint32_t{0});                                 // flags
  out.put(uint32_t{context.initrd.empty() ? 0u : 1u});  // modules
  out.put(kBootInfo + kStartInfoSize);                  // their list
  out.put(kBootCmdline);
  out.put(context.config.acpi_rsdp);
  out.put(kBootMemoryMap);
  out.put(static_cast<uint32_t>(memory_map(context.memory).size()));
  out.put(uint32_t{0});
  US_CHECK(out.size() == kStartInfoSize);
  out.put(initrd);
  out.put(uint64_t{context.initrd.size()});
  out.put(uint64_t{0});  // no command line of its own
  out.put(uint64_t{0});
  return out;
}

}  // namespace

Result<BootState> load_pvh(LoadContext& context, const ElfImage& elf) {
  const std::string& name = context.config.kernel;
  if (!elf.pvh_entry)
    return boot_error("BOOT-015", fmt::format("kernel {} cannot be entered by PVH", name),
                      "no Xen note with a 32-bit entry", "a kernel built with CONFIG_PVH",
                      "let the protocol be chosen by itself");
  Placement placement(context.memory, name);
  if (Status status = placement.place(elf.segments); !status) return status.error();
  if (Status status = check_entry(placement, *elf.pvh_entry, name); !status) return status.error();
  if (Status status = place_cmdline(context, context.config.cmdline, kDefaultCmdlineMax); !status)
    return status.error();
  uint64_t initrd = 0;
  if (!context.initrd.empty()) {
    const auto address =
        placement.place_initrd(context.initrd, kDefaultInitrdHighest, context.config.initrd);
    if (!address) return address.error();
    initrd = *address;
  }
  ByteWriter map;
  put_memory_map(map, context.memory);
  US_CHECK(context.memory.write(GuestPhys(kBootMemoryMap), map.bytes()));
  US_CHECK(context.memory.write(GuestPhys(kBootInfo), start_info(context, initrd).bytes()));

  BootState state = protected_mode_state(context.memory, *elf.pvh_entry);
  state.protocol = BootProtocol::kPvh;
  state.gpr[3] = kBootInfo;  // EBX
  return state;
}

}  // namespace us::hv
