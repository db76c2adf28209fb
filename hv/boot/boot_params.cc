#include "hv/boot/boot_params.h"

#include <algorithm>
#include <array>

#include "hv/boot/image_bytes.h"
#include "hv/boot/layout.h"

namespace us::hv {

namespace {

using Page = std::array<uint8_t, kPageSize>;

template <class T>
void store(Page& page, uint64_t offset, T value) {
  std::memcpy(page.data() + offset, &value, sizeof value);
}

void fill_memory_map(Page& page, const GuestMemory& memory) {
  uint64_t at = linux_header::kE820Table;
  uint8_t count = 0;
  for (const MemoryRange& range : memory_map(memory)) {
    store(page, at, range.base);
    store(page, at + 8, range.size);
    store(page, at + 16, static_cast<uint32_t>(range.type));
    at += 20;
    ++count;
  }
  store(page, linux_header::kE820Count, count);
}

}  // namespace

Result<BootState> enter_linux64(LoadContext& context, Placement& placement, ByteSpan header,
                                uint64_t entry) {
  namespace lh = linux_header;
  Page page{};
  std::copy_n(header.begin(), std::min<uint64_t>(header.size(), lh::kHeaderMax - lh::kStart),
              page.begin() + lh::kStart);
  uint64_t cmdline_max = load_at<uint32_t>(page, lh::kCmdlineSize);
  if (cmdline_max == 0) cmdline_max = kDefaultCmdlineMax;
  uint64_t initrd_highest = load_at<uint32_t>(page, lh::kInitrdHighest);
  if (initrd_highest == 0) initrd_highest = kDefaultInitrdHighest;

  if (Status status = check_entry(placement, entry, context.config.kernel); !status)
    return status.error();
  if (Status status = place_cmdline(context, context.config.cmdline, cmdline_max); !status)
    return status.error();
  store(page, lh::kCmdlinePointer, static_cast<uint32_t>(kBootCmdline));
  if (!context.initrd.empty()) {
    const auto address =
        placement.place_initrd(context.initrd, initrd_highest, context.config.initrd);
    if (!address) return address.error();
    store(page, lh::kRamdiskImage, static_cast<uint32_t>(*address));
    store(page, lh::kRamdiskSize, static_cast<uint32_t>(context.initrd.size()));
  }
  store(page, lh::kLoader, uint8_t{0xff});  // a loader without an assigned number
  store(page, lh::kAcpiRsdp, context.config.acpi_rsdp);
  fill_memory_map(page, context.memory);
  US_CHECK(context.memory.write(GuestPhys(kBootParams), page));

  BootState state = long_mode_state(context.memory, entry);
  state.protocol = BootProtocol::kLinux64;
  state.gpr[6] = kBootParams;  // RSI. boot.rst, "64-bit Boot Protocol"
  return state;
}

}  // namespace us::hv
