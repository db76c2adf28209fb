// Linux's boot_params and setup header. Documentation/x86/boot.rst, zero-page.rst.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "hv/boot/load_context.h"

namespace us::hv {

// Offsets into boot_params; the setup header has the same ones in a bzImage.
namespace linux_header {
constexpr uint64_t kAcpiRsdp = 0x070;
constexpr uint64_t kE820Count = 0x1e8;
constexpr uint64_t kStart = 0x1f1;
constexpr uint64_t kSetupSectors = 0x1f1;
constexpr uint64_t kBootFlag = 0x1fe;
constexpr uint64_t kJumpOffset = 0x201;  // the header ends at 0x202 plus this byte
constexpr uint64_t kMagic = 0x202;
constexpr uint64_t kVersion = 0x206;
constexpr uint64_t kKernelVersion = 0x20e;
constexpr uint64_t kLoader = 0x210;
constexpr uint64_t kLoadFlags = 0x211;
constexpr uint64_t kRamdiskImage = 0x218;
constexpr uint64_t kRamdiskSize = 0x21c;
constexpr uint64_t kCmdlinePointer = 0x228;
constexpr uint64_t kInitrdHighest = 0x22c;
constexpr uint64_t kKernelAlignment = 0x230;
constexpr uint64_t kXloadFlags = 0x236;
constexpr uint64_t kCmdlineSize = 0x238;
constexpr uint64_t kPayloadOffset = 0x248;
constexpr uint64_t kPayloadLength = 0x24c;
constexpr uint64_t kInitSize = 0x260;
constexpr uint64_t kEnd = 0x268;        // what this loader reads lies below
constexpr uint64_t kHeaderMax = 0x290;  // boot_params has other fields from here
constexpr uint64_t kE820Table = 0x2d0;

constexpr uint16_t kBootFlagValue = 0xaa55;
constexpr uint32_t kMagicValue = 0x53726448;  // "HdrS"
}  // namespace linux_header

constexpr uint64_t kDefaultCmdlineMax = 2047;  // COMMAND_LINE_SIZE of x86 less the zero
constexpr uint64_t kDefaultInitrdHighest = 0x7fff'ffff;

// Places command line, initrd and boot_params (with `header`, the image's setup header from
// kStart on) and gives the entry state. The image's segments are already placed.
Result<BootState> enter_linux64(LoadContext& context, Placement& placement, ByteSpan header,
                                uint64_t entry);

}  // namespace us::hv
