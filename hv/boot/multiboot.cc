// Multiboot 0.6.96: an image with a header in its first 8 KiB, entered in 32-bit protected mode.
#include <algorithm>
#include <fmt/format.h>
#include <optional>

#include "hv/boot/boot_errors.h"
#include "hv/boot/image_bytes.h"
#include "hv/boot/layout.h"
#include "hv/boot/load_context.h"

namespace us::hv {

namespace {

constexpr uint32_t kHeaderMagic = 0x1badb002;  // 3.1.2
constexpr uint32_t kLoaderMagic = 0x2badb002;  // 3.2
constexpr uint64_t kSearchEnd = 8192;          // 3.1
constexpr uint32_t kWantsVideo = 1 << 2;
constexpr uint32_t kRequiredMask = 0xffff;   // features an image insists on
constexpr uint32_t kHasAddresses = 1 << 16;  // the "a.out kludge"
constexpr uint32_t kKnownRequired = 0x3;     // page-aligned modules, memory information

// Bits of the information structure's flags. 3.3.
constexpr uint32_t kInfoMemory = 1 << 0;
constexpr uint32_t kInfoCmdline = 1 << 2;
constexpr uint32_t kInfoModules = 1 << 3;
constexpr uint32_t kInfoMap = 1 << 6;
constexpr uint32_t kInfoLoaderName = 1 << 9;
constexpr uint64_t kInfoSize = 116;
constexpr uint64_t kModuleAt = kBootInfo + 0x100;
constexpr uint64_t kMapAt = kBootParams;
constexpr uint64_t kNamesAt = kBootInfo + 0x200;
constexpr char kLoaderName[] = "Understudy";
constexpr uint64_t kCmdlineMax = kCmdlineRoom - 1;
constexpr uint64_t kDefaultModuleHighest = 0xffff'efff;  // 32-bit addresses in the list

std::optional<uint64_t> find_header(ByteSpan image) {
  const uint64_t end = std::min<uint64_t>(image.size(), kSearchEnd);
  for (uint64_t at = 0; in_bounds(at, 12, end); at += 4) {
    if (load_at<uint32_t>(image, at) != kHeaderMagic) continue;
    const uint32_t sum =
        kHeaderMagic + load_at<uint32_t>(image, at + 4) + load_at<uint32_t>(image, at + 8);
    if (sum == 0) return at;
  }
  return std::nullopt;
}

UserError bad_header(const std::string& name, std::string seen, std::string needed) {
  return boot_error("BOOT-013", fmt::format("{} has a Multiboot header that makes no sense", name),
                    std::move(seen), std::move(needed), "correct the image's header");
}

struct Layout {
  std::vector<ImageSegment> segments;
  uint64_t entry = 0;
};

// The addresses in the header instead of ELF's. 3.1.3.
Result<Layout> layout_by_addresses(ByteSpan image, uint64_t header, const std::string& name) {
  const uint64_t header_addr = load_at<uint32_t>(image, header + 12);
  const uint64_t load_addr = load_at<uint32_t>(image, header + 16);
  uint64_t load_end = load_at<uint32_t>(image, header + 20);
  const uint64_t bss_end = load_at<uint32_t>(image, header + 24);
  if (!in_bounds(header, 32, image.size()) || load_addr > header_addr ||
      header_addr - load_addr > header)
    return bad_header(name,
                      fmt::format("load address {:#x}, header address {:#x} at offset {}",
                                  load_addr, header_addr, header),
                      "a load address inside the file");
  const uint64_t offset = header - (header_addr - load_addr);
  if (load_end == 0) load_end = load_addr + (image.size() - offset);
  if (load_end <= load_addr || !in_bounds(offset, load_end - load_addr, image.size()))
    return bad_header(name,
                      fmt::format("data from {:#x} to {:#x} at offset {} of {} bytes", load_addr,
                                  load_end, offset, image.size()),
                      "a data range inside the file");
  Layout layout;
  const uint64_t size = load_end - load_addr;
  layout.segments.push_back(
      {load_addr, std::max(load_end, bss_end) - load_addr, image.subspan(offset, size)});
  layout.entry = load_at<uint32_t>(image, header + 28);
  return layout;
}

Result<Layout> find_layout(ByteSpan image, const std::string& name) {
  const std::optional<uint64_t> header = find_header(image);
  if (!header)
    return boot_error("BOOT-015", fmt::format("kernel {} is no Multiboot image", name),
                      "no header in its first 8192 bytes", "a Multiboot 1 header",
                      "let the protocol be chosen by itself");
  const uint32_t flags = load_at<uint32_t>(image, *header + 4);
  if (const uint32_t unknown = flags & kRequiredMask & ~kKnownRequired; unknown != 0)
    return bad_header(name,
                      fmt::format("required features {:#x}{}", unknown,
                                  unknown & kWantsVideo ? " (a video mode)" : ""),
                      "page alignment and memory information at most");
  if (flags & kHasAddresses) return layout_by_addresses(image, *header, name);
  auto elf = parse_elf(image, name);
  if (!elf) return elf.error();
  return Layout{std::move(elf->segments), elf->entry};
}

// Entries of {size of the rest, base, length, type}. 3.3.
ByteWriter information_map(const GuestMemory& memory) {
  ByteWriter map;
  for (const MemoryRange& range : memory_map(memory)) {
    map.put(uint32_t{20});
    map.put(range.base);
    map.put(range.size);
    map.put(static_cast<uint32_t>(range.type));
  }
  return map;
}

ByteWriter information(const LoadContext& context, size_t map_size) {
  ByteWriter out;
  out.put(kInfoMemory | kInfoCmdline | kInfoModules | kInfoMap | kInfoLoaderName);
  out.put(static_cast<uint32_t>(kLowMemoryEnd / 1024));
  out.put(static_cast<uint32_t>((context.memory.low_size() - kImageBase) / 1024));
  out.put(uint32_t{0});  // boot device
  out.put(static_cast<uint32_t>(kBootCmdline));
  out.put(uint32_t{context.initrd.empty() ? 0u : 1u});
  out.put(static_cast<uint32_t>(kModuleAt));
  for (int i = 0; i < 4; ++i) out.put(uint32_t{0});  // symbols
  out.put(static_cast<uint32_t>(map_size));
  out.put(static_cast<uint32_t>(kMapAt));
  for (int i = 0; i < 3; ++i) out.put(uint32_t{0});  // drives, configuration table
  out.put(static_cast<uint32_t>(kNamesAt));
  while (out.size() < kInfoSize) out.put(uint8_t{0});
  return out;
}

void put(GuestMemory& memory, uint64_t address, ByteSpan bytes) {
  US_CHECK(memory.write(GuestPhys(address), bytes));
}

Status place_module(LoadContext& context, Placement& placement) {
  const auto address =
      placement.place_initrd(context.initrd, kDefaultModuleHighest, context.config.initrd);
  if (!address) return address.error();
  ByteWriter module;
  module.put(static_cast<uint32_t>(*address));
  module.put(static_cast<uint32_t>(*address + context.initrd.size()));
  module.put(static_cast<uint32_t>(kNamesAt + sizeof kLoaderName - 1));  // the empty string
  module.put(uint32_t{0});
  put(context.memory, kModuleAt, module.bytes());
  return Done{};
}

}  // namespace

bool looks_like_multiboot(ByteSpan image) { return find_header(image).has_value(); }

Result<BootState> load_multiboot(LoadContext& context, ByteSpan image) {
  const std::string& name = context.config.kernel;
  auto layout = find_layout(image, name);
  if (!layout) return layout.error();
  Placement placement(context.memory, name, kLowImageBase, kLowImageEnd);
  if (Status status = placement.place(layout->segments); !status) return status.error();
  if (Status status = check_entry(placement, layout->entry, name); !status) return status.error();
  // The first word is the image's name, as other Multiboot loaders have it; never the file's, which
  // a recording keeps under another one.
  const std::string cmdline =
      context.config.cmdline.empty() ? "kernel" : "kernel " + context.config.cmdline;
  if (Status status = place_cmdline(context, cmdline, kCmdlineMax); !status) return status.error();
  if (!context.initrd.empty())
    if (Status status = place_module(context, placement); !status) return status.error();
  const ByteWriter map = information_map(context.memory);
  put(context.memory, kMapAt, map.bytes());
  put(context.memory, kBootInfo, information(context, map.size()).bytes());
  put(context.memory, kNamesAt,
      ByteSpan(reinterpret_cast<const uint8_t*>(kLoaderName), sizeof kLoaderName));

  BootState state = protected_mode_state(context.memory, layout->entry);
  state.protocol = BootProtocol::kMultiboot1;
  state.gpr[0] = kLoaderMagic;
  state.gpr[3] = kBootInfo;
  return state;
}

}  // namespace us::hv
