#include <cstring>
#include <doctest/doctest.h>

#include "hv/boot/layout.h"
#include "tests/unit/boot/images.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::testing;

TEST_CASE("a vmlinux with a PVH note is entered in protected mode with hvm_start_info in EBX") {
  auto memory = make_memory(64);
  const Bytes elf = make_elf({.pvh_entry = 0x100'0010});
  const Bytes initrd(5000, 0x11);
  const auto state = load_kernel_bytes(
      *memory, elf, initrd, {.kernel = "k", .initrd = "i", .cmdline = "a=b", .acpi_rsdp = 0xe1234});
  REQUIRE(outcome(state) == "ok");
  CHECK(state->protocol == BootProtocol::kPvh);
  CHECK_FALSE(state->long_mode);
  CHECK(state->rip == 0x100'0010);
  CHECK((state->cr0 & 0x80000001) == 1);
  const uint64_t info = state->gpr[3];
  CHECK(peek<uint32_t>(*memory, info) == 0x336ec578);
  CHECK(peek<uint32_t>(*memory, info + 4) == 1);
  REQUIRE(peek<uint32_t>(*memory, info + 12) == 1);
  const uint64_t module = peek<uint64_t>(*memory, info + 16);
  CHECK(peek<uint8_t>(*memory, peek<uint64_t>(*memory, module)) == 0x11);
  CHECK(peek<uint64_t>(*memory, module + 8) == initrd.size());
  CHECK(peek_string(*memory, peek<uint64_t>(*memory, info + 24)) == "a=b");
  CHECK(peek<uint64_t>(*memory, info + 32) == 0xe1234);
  const uint64_t map = peek<uint64_t>(*memory, info + 40);
  CHECK(peek<uint32_t>(*memory, info + 48) == 4);
  CHECK(peek<uint64_t>(*memory, map + 8) == kLowMemoryEnd);
  CHECK(peek<uint32_t>(*memory, map + 16) == 1);
}

TEST_CASE("a vmlinux without a PVH note is entered by the 64-bit protocol, or refused PVH") {
  auto memory = make_memory(64);
  const Bytes elf = make_elf({});
  const auto state = load_kernel_bytes(*memory, elf, {}, {.kernel = "k"});
  REQUIRE(outcome(state) == "ok");
  CHECK(state->protocol == BootProtocol::kLinux64);
  CHECK(peek<uint32_t>(*memory, kBootParams + 0x202) == 0x53726448);
  CHECK(outcome(load_kernel_bytes(*memory, elf, {}, {.kernel = "k", .choice = BootChoice::kPvh})) ==
        "BOOT-015");
  CHECK(outcome(load_kernel_bytes(
            *memory, elf, {}, {.kernel = "k", .choice = BootChoice::kMultiboot1})) == "BOOT-015");
}

TEST_CASE("hostile ELF segments are refused: outside memory, huge, overlapping, low, inverted") {
  auto memory = make_memory(64);
  const auto load = [&](const ElfRecipe& recipe) {
    return outcome(load_kernel_bytes(*memory, make_elf(recipe), {}, {.kernel = "k"}));
  };
  const Bytes code(64, 0x90);
  CHECK(load({.segments = {{0x100'0000, code, 1ull << 40}}}) == "BOOT-009");
  CHECK(load({.segments = {{0x100'0000, code, ~0ull}}}) == "BOOT-009");
  CHECK(load({.segments = {{~0ull - 10, code, 64}}}) == "BOOT-009");
  CHECK(load({.segments = {{0xc000'0000, code, 0}}}) == "BOOT-009");
  CHECK(load({.segments = {{0x100'0000, code, 0}, {0x100'0020, code, 0}}}) == "BOOT-010");
  CHECK(load({.segments = {{0x7000, code, 0}}}) == "BOOT-010");
  CHECK(load({.segments = {{0x100'0000, code, 32}}}) == "BOOT-008");
  CHECK(load({.entry = 0x200'0000}) == "BOOT-014");
  CHECK(load({.segments = {}}) == "BOOT-008");
}

TEST_CASE("RAM above 4 GiB is in the map, and a kernel entered there is refused") {
  auto memory = make_memory(5 << 10);
  const auto map = memory_map(*memory);
  REQUIRE(map.size() == 5);
  CHECK(map[4].base == 0x1'0000'0000);
  CHECK(map[4].size == (2ull << 30));
  const ElfRecipe recipe{.entry = 0x1'0000'0000, .segments = {{0x1'0000'0000, Bytes(64), 0}}};
  CHECK(outcome(load_kernel_bytes(*memory, make_elf(recipe), {}, {.kernel = "k"})) == "BOOT-014");
}

TEST_CASE("an ELF cut at any length gives an error") {
  const Bytes elf = make_elf({.pvh_entry = 0x100'0010});
  auto memory = make_memory(64);
  // Without the note at its end the image is whole again only as a PT_LOAD-only kernel: cut too.
  for (size_t size = 0; size < elf.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(load_kernel_bytes(*memory, ByteSpan(elf).first(size), {}, {.kernel = "k"}).ok());
  }
}

TEST_CASE("foreign ELF files are named: other machine, big-endian, 32-bit without a protocol") {
  auto memory = make_memory(64);
  Bytes arm = make_elf({});
  arm[18] = 183;  // e_machine: AArch64
  CHECK(outcome(load_kernel_bytes(*memory, arm, {}, {.kernel = "k"})) == "BOOT-008");
  Bytes big = make_elf({});
  big[5] = 2;
  CHECK(outcome(load_kernel_bytes(*memory, big, {}, {.kernel = "k"})) == "BOOT-008");
  CHECK(outcome(load_kernel_bytes(*memory, make_elf({.is_64 = false}), {}, {.kernel = "k"})) ==
        "BOOT-005");
}
