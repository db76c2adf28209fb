#include "hv/boot/boot.h"

#include <fmt/format.h>

#include "hv/boot/boot_errors.h"
#include "hv/boot/image_bytes.h"
#include "hv/boot/layout.h"
#include "hv/boot/load_context.h"

namespace us::hv {

namespace {

constexpr uint64_t kKernelFileMax = 1ull << 30;
constexpr uint64_t kMinimumMemory = 2 << 20;

UserError not_offered(const std::string& name, const char* wanted, const char* seen) {
  return boot_error("BOOT-015", fmt::format("kernel {} cannot be entered by {}", name, wanted),
                    seen, "an image that offers this protocol",
                    "let the protocol be chosen by itself");
}

Result<BootState> load_elf(LoadContext& context, ByteSpan image) {
  const auto elf = parse_elf(image, context.config.kernel);
  if (!elf) return elf.error();
  switch (context.config.choice) {
    case BootChoice::kPvh: return load_pvh(context, *elf);
    case BootChoice::kLinux64: return load_linux64_elf(context, *elf);
    default: break;
  }
  if (elf->pvh_entry) return load_pvh(context, *elf);
  return load_linux64_elf(context, *elf);
}

}  // namespace

Status place_cmdline(LoadContext& context, const std::string& cmdline, uint64_t longest) {
  const uint64_t most = std::min(longest, kCmdlineRoom - 1);
  if (cmdline.size() > most)
    return boot_error("BOOT-012", "the kernel's command line is too long",
                      fmt::format("{} bytes", cmdline.size()), fmt::format("at most {}", most),
                      "shorten it");
  if (cmdline.find('\0') != std::string::npos)
    return boot_error("BOOT-012", "the kernel's command line holds a zero byte", {}, "text",
                      "remove it");
  ByteWriter bytes;
  bytes.put_bytes(ByteSpan(reinterpret_cast<const uint8_t*>(cmdline.data()), cmdline.size()));
  bytes.put(uint8_t{0});
  US_CHECK(context.memory.write(GuestPhys(kBootCmdline), bytes.bytes()));
  return Done{};
}

Status check_entry(const Placement& placement, uint64_t entry, const std::string& name) {
  // Both ways in reach the low 4 GiB only: no paging, or the identity map.
  if (placement.covers(entry) && entry < GuestMemory::kHighBase) return Done{};
  return boot_error("BOOT-014", fmt::format("kernel {} starts outside itself", name),
                    fmt::format("entry point {:#x}", entry),
                    "an entry inside a loaded segment below 4 GiB", "give an unharmed kernel");
}

Result<BootState> load_kernel_bytes(GuestMemory& memory, ByteSpan kernel, ByteSpan initrd,
                                    const BootConfig& config) {
  if (memory.low_size() < kMinimumMemory)
    return boot_error("BOOT-016", "the machine has too little memory for any kernel",
                      fmt::format("{} KiB", memory.size() >> 10), "2 MiB; Linux needs about 96 MiB",
                      "give the machine more memory");
  LoadContext context{memory, config, initrd};
  if (looks_like_bzimage(kernel)) {
    if (config.choice == BootChoice::kMultiboot1)
      return not_offered(config.kernel, "Multiboot", "a bzImage");
    return load_bzimage(context, kernel);
  }
  const bool automatic = config.choice == BootChoice::kAuto;
  if (config.choice == BootChoice::kMultiboot1 || (automatic && looks_like_multiboot(kernel)))
    return load_multiboot(context, kernel);
  if (looks_like_elf(kernel)) return load_elf(context, kernel);
  std::string first;
  for (size_t i = 0; i < std::min<size_t>(kernel.size(), 8); ++i)
    first += fmt::format("{:02x} ", kernel[i]);
  return boot_error("BOOT-003", fmt::format("{} is not a kernel image", config.kernel),
                    kernel.empty() ? "an empty file" : fmt::format("first bytes {}", first),
                    "a bzImage, an x86 ELF, or a Multiboot 1 image",
                    "run `./dev guest` for a kernel, or give another path");
}

Result<BootState> load_kernel(GuestMemory& memory, const BootConfig& config) {
  const auto kernel = ImageFile::open(config.kernel, "kernel", kKernelFileMax);
  if (!kernel) return kernel.error();
  ImageFile initrd;
  if (!config.initrd.empty()) {
    auto opened = ImageFile::open(config.initrd, "initrd", memory.low_size());
    if (!opened) return opened.error();
    initrd = std::move(opened).value();
  }
  return load_kernel_bytes(memory, kernel->bytes(), initrd.bytes(), config);
}

}  // namespace us::hv
