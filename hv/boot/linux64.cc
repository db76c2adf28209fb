// bzImage and bare vmlinux by Linux's 64-bit boot protocol.
#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "hv/boot/boot_errors.h"
#include "hv/boot/boot_params.h"
#include "hv/boot/decompress.h"
#include "hv/boot/image_bytes.h"

namespace us::hv {

namespace lh = linux_header;

namespace {

constexpr uint64_t kSector = 512;
constexpr uint16_t kOldestVersion = 0x020c;  // xloadflags since here
constexpr uint16_t kXlfKernel64 = 1;
constexpr size_t kVersionTextMax = 256;

UserError cut_short(const std::string& name, std::string seen) {
  return boot_error("BOOT-004", fmt::format("kernel {} is cut short", name), std::move(seen),
                    "the whole bzImage", "copy or download the file again");
}

// The text that the setup header points at, up to a zero.
std::string version_text(ByteSpan image) {
  const uint64_t at = load_at<uint16_t>(image, lh::kKernelVersion) + uint64_t{kSector};
  std::string text;
  for (uint64_t i = at; i < image.size() && text.size() < kVersionTextMax; ++i) {
    if (image[i] < 0x20 || image[i] > 0x7e) break;
    text.push_back(static_cast<char>(image[i]));
  }
  return text;
}

Status check_header(ByteSpan image, const std::string& name) {
  if (image.size() < lh::kEnd) return cut_short(name, fmt::format("{} bytes", image.size()));
  const auto version = load_at<uint16_t>(image, lh::kVersion);
  const auto flags = load_at<uint16_t>(image, lh::kXloadFlags);
  if (version < kOldestVersion || (flags & kXlfKernel64) == 0)
    return boot_error(
        "BOOT-005", fmt::format("kernel {} cannot be entered in 64-bit mode", name),
        fmt::format("boot protocol {}.{}, load flags {:#x}", version >> 8, version & 0xff, flags),
        "protocol 2.12 or newer with the 64-bit entry flag",
        "use a 64-bit x86 kernel of Linux 3.8 or newer");
  return Done{};
}

Result<ByteSpan> find_payload(ByteSpan image, const std::string& name) {
  uint64_t sectors = load_at<uint8_t>(image, lh::kSetupSectors);
  if (sectors == 0) sectors = 4;  // boot.rst, "setup_sects"
  const uint64_t start =
      (sectors + 1) * kSector + uint64_t{load_at<uint32_t>(image, lh::kPayloadOffset)};
  const uint64_t length = load_at<uint32_t>(image, lh::kPayloadLength);
  if (length == 0 || !in_bounds(start, length, image.size()))
    return cut_short(name, fmt::format("payload of {} bytes at {} in a file of {} bytes", length,
                                       start, image.size()));
  return image.subspan(start, length);
}

ByteSpan setup_header(ByteSpan image) {
  const uint64_t end = 0x202 + uint64_t{image[lh::kJumpOffset]};
  return image.subspan(lh::kStart, std::min<uint64_t>(end, image.size()) - lh::kStart);
}

}  // namespace

bool looks_like_bzimage(ByteSpan image) {
  return load_at<uint16_t>(image, lh::kBootFlag) == lh::kBootFlagValue &&
         load_at<uint32_t>(image, lh::kMagic) == lh::kMagicValue;
}

Result<BootState> load_bzimage(LoadContext& context, ByteSpan image) {
  const std::string& name = context.config.kernel;
  if (Status status = check_header(image, name); !status) return status.error();
  const auto payload = find_payload(image, name);
  if (!payload) return payload.error();
  const auto vmlinux = decompress_payload(*payload, context.memory.size(), name);
  if (!vmlinux) return vmlinux.error();
  const auto elf = parse_elf(*vmlinux, fmt::format("the vmlinux in {}", name));
  if (!elf) return elf.error();
  if (context.config.choice == BootChoice::kPvh) return load_pvh(context, *elf);

  Placement placement(context.memory, name);
  if (Status status = placement.place(elf->segments); !status) return status.error();
  // init_size is what the kernel may use from its start before it reads the memory map.
  uint64_t lowest = ~0ull;
  for (const ImageSegment& segment : elf->segments) lowest = std::min(lowest, segment.physical);
  placement.reserve_up_to(lowest + load_at<uint32_t>(image, lh::kInitSize));
  auto state = enter_linux64(context, placement, setup_header(image), elf->entry);
  if (state) state->kernel_version = version_text(image);
  return state;
}

Result<BootState> load_linux64_elf(LoadContext& context, const ElfImage& elf) {
  const std::string& name = context.config.kernel;
  if (!elf.is_64)
    return boot_error("BOOT-005", fmt::format("kernel {} cannot be entered in 64-bit mode", name),
                      "a 32-bit ELF without PVH note or Multiboot header",
                      "a 64-bit vmlinux, a PVH note, or a Multiboot header",
                      "use another build of the kernel");
  Placement placement(context.memory, name);
  if (Status status = placement.place(elf.segments); !status) return status.error();
  // A vmlinux has no setup header; this one says no more than the protocol asks for.
  std::array<uint8_t, lh::kEnd> header{};
  const auto store = [&](uint64_t offset, auto value) {
    std::memcpy(header.data() + offset, &value, sizeof value);
  };
  store(lh::kBootFlag, lh::kBootFlagValue);
  store(lh::kMagic, lh::kMagicValue);
  store(lh::kVersion, kOldestVersion);
  store(lh::kLoadFlags, uint8_t{1});  // LOADED_HIGH
  store(lh::kKernelAlignment, uint32_t{0x200000});
  return enter_linux64(context, placement, ByteSpan(header).subspan(lh::kStart), elf.entry);
}

}  // namespace us::hv
