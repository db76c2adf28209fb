#include <cstring>
#include <doctest/doctest.h>

#include "hv/boot/boot_params.h"
#include "hv/boot/layout.h"
#include "tests/unit/boot/images.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::testing;
namespace lh = us::hv::linux_header;

namespace {

Bytes patterned(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>((i * 7) ^ (i >> 9));
  return bytes;
}

ElfRecipe vmlinux_recipe() {
  ElfRecipe recipe;
  recipe.segments = {{0x100'0000, patterned(100'000), 0}, {0x140'0000, patterned(5'000), 1 << 20}};
  return recipe;
}

}  // namespace

TEST_CASE("a bzImage packed by each known method is placed and entered at its vmlinux's entry") {
  const Bytes vmlinux = make_elf(vmlinux_recipe());
  for (const Packing packing : {Packing::kXz, Packing::kZstd, Packing::kGzip, Packing::kLz4}) {
    CAPTURE(static_cast<int>(packing));
    auto memory = make_memory(64);
    const Bytes image = make_bzimage({.payload = pack(vmlinux, packing)});
    const auto state = load_kernel_bytes(*memory, image, {}, {.kernel = "k", .cmdline = "quiet"});
    REQUIRE(outcome(state) == "ok");
    CHECK(state->protocol == BootProtocol::kLinux64);
    CHECK(state->long_mode);
    CHECK(state->rip == 0x100'0000);
    CHECK(state->gpr[6] == kBootParams);
    CHECK(state->kernel_version == "6.1.0-test");
    Bytes placed(100'000);
    REQUIRE(memory->read(GuestPhys(0x100'0000), placed));
    CHECK(placed == patterned(100'000));
  }
}

TEST_CASE("an lz4 payload of whole 8 MiB blocks only is unpacked whole") {
  ElfRecipe recipe;
  recipe.segments = {{0x100'0000, Bytes(64), 0}};
  Bytes vmlinux = make_elf(recipe);
  vmlinux.resize(16 << 20, 0x5a);
  auto memory = make_memory(64);
  const Bytes image = make_bzimage({.payload = pack(vmlinux, Packing::kLz4)});
  CHECK(outcome(load_kernel_bytes(*memory, image, {}, {.kernel = "k"})) == "ok");
}

TEST_CASE("boot_params hold header, command line, RSDP, memory map and initrd of the machine") {
  auto memory = make_memory(64);
  const Bytes image = make_bzimage({.payload = pack(make_elf(vmlinux_recipe()), Packing::kXz)});
  const Bytes initrd = patterned(12'345);
  const auto state = load_kernel_bytes(
      *memory, image, initrd,
      {.kernel = "k", .initrd = "i", .cmdline = "console=ttyS0", .acpi_rsdp = 0xe0000});
  REQUIRE(outcome(state) == "ok");
  const auto param = [&](uint64_t offset) { return kBootParams + offset; };
  CHECK(peek<uint32_t>(*memory, param(lh::kMagic)) == lh::kMagicValue);
  CHECK(peek<uint8_t>(*memory, param(lh::kLoader)) == 0xff);
  CHECK(peek<uint64_t>(*memory, param(lh::kAcpiRsdp)) == 0xe0000);
  CHECK(peek_string(*memory, peek<uint32_t>(*memory, param(lh::kCmdlinePointer))) ==
        "console=ttyS0");
  CHECK(peek<uint8_t>(*memory, param(0x1ef)) == 0);  // sentinel: the fields are meant

  REQUIRE(peek<uint8_t>(*memory, param(lh::kE820Count)) == 4);
  const uint64_t last = param(lh::kE820Table) + 3 * 20;
  CHECK(peek<uint64_t>(*memory, last) == 0x100000);
  CHECK(peek<uint64_t>(*memory, last + 8) == (63 << 20));
  CHECK(peek<uint32_t>(*memory, last + 16) == 1);

  const auto address = peek<uint32_t>(*memory, param(lh::kRamdiskImage));
  CHECK(address % kPageSize == 0);
  CHECK(address + 4 * kPageSize == (64 << 20));
  CHECK(peek<uint32_t>(*memory, param(lh::kRamdiskSize)) == initrd.size());
  Bytes placed(initrd.size());
  REQUIRE(memory->read(GuestPhys(address), placed));
  CHECK(placed == initrd);
}

TEST_CASE("entry state: identity pages for the low 4 GiB, a flat 64-bit GDT, interrupts off") {
  auto memory = make_memory(64);
  const Bytes image = make_bzimage({.payload = pack(make_elf(vmlinux_recipe()), Packing::kXz)});
  const auto state = load_kernel_bytes(*memory, image, {}, {.kernel = "k"});
  REQUIRE(outcome(state) == "ok");
  CHECK((state->cr0 & 0x80000001) == 0x80000001);
  CHECK((state->cr4 & 0x20) != 0);
  CHECK(state->efer == 0x500);
  CHECK((state->rflags & 0x200) == 0);
  for (const uint64_t address : {0x0ull, 0x100'0000ull, 0xfee0'0000ull}) {
    const uint64_t pml4e = peek<uint64_t>(*memory, state->cr3 + (address >> 39 & 511) * 8);
    const uint64_t pdpte = peek<uint64_t>(*memory, (pml4e & ~0xfffull) + (address >> 30 & 511) * 8);
    const uint64_t pde = peek<uint64_t>(*memory, (pdpte & ~0xfffull) + (address >> 21 & 511) * 8);
    CHECK((pde & 0x83) == 0x83);
    CHECK((pde & ~0x1f'ffffull) == (address & ~0x1f'ffffull));
  }
  const uint64_t code = peek<uint64_t>(*memory, state->gdt_base + state->code_selector);
  CHECK((code >> 53 & 1) == 1);  // L
  CHECK(state->gdt_limit >= state->task_selector + 15);
}

TEST_CASE("reloading into used memory clears what a segment says is zero") {
  auto memory = make_memory(64);
  const Bytes dirt(4096, 0xee);
  REQUIRE(memory->write(GuestPhys(0x140'0000 + 8192), dirt));
  const Bytes image = make_bzimage({.payload = pack(make_elf(vmlinux_recipe()), Packing::kGzip)});
  REQUIRE(outcome(load_kernel_bytes(*memory, image, {}, {.kernel = "k"})) == "ok");
  CHECK(peek<uint64_t>(*memory, 0x140'0000 + 8192) == 0);
}

TEST_CASE("a bzImage cut at any length gives one error and never a state") {
  const Bytes image = make_bzimage({.payload = pack(make_elf(vmlinux_recipe()), Packing::kXz)});
  auto memory = make_memory(64);
  // The last 4 bytes are the appended size, which the loader can do without.
  for (size_t size = 0; size < image.size() - 4; size += size < 1024 ? 37 : 997) {
    CAPTURE(size);
    const auto state = load_kernel_bytes(*memory, ByteSpan(image).first(size), {}, {.kernel = "k"});
    CHECK_FALSE(state.ok());
  }
}

TEST_CASE("wrong bzImages are told apart: old, 32-bit, unknown packing, broken, too big") {
  auto memory = make_memory(64);
  const Bytes good = pack(make_elf(vmlinux_recipe()), Packing::kXz);
  const auto load = [&](const BzimageRecipe& recipe) {
    return outcome(load_kernel_bytes(*memory, make_bzimage(recipe), {}, {.kernel = "k"}));
  };
  CHECK(load({.payload = good, .version = 0x0209}) == "BOOT-005");
  CHECK(load({.payload = good, .xloadflags = 0}) == "BOOT-005");
  CHECK(load({.payload = Bytes(64, 0x77)}) == "BOOT-006");
  CHECK(load({.payload = pack(good, Packing::kBzip2Magic)}) == "BOOT-006");
  Bytes bent = good;
  bent[bent.size() / 2] ^= 0x40;
  CHECK(load({.payload = bent}) == "BOOT-007");
  CHECK(load({.payload = {}}) == "BOOT-004");
  const Bytes bomb = pack(Bytes(80 << 20), Packing::kZstd);
  CHECK(load({.payload = bomb}) == "BOOT-009");
  CHECK(load({.payload = pack(Bytes(4096, 1), Packing::kXz)}) == "BOOT-008");
}

TEST_CASE("memory too small for kernel or initrd, and a too long command line, are user errors") {
  const Bytes image = make_bzimage({.payload = pack(make_elf(vmlinux_recipe()), Packing::kXz)});
  auto small = make_memory(16);
  CHECK(outcome(load_kernel_bytes(*small, image, {}, {.kernel = "k"})) == "BOOT-009");
  auto tiny = make_memory(1);
  CHECK(outcome(load_kernel_bytes(*tiny, image, {}, {.kernel = "k"})) == "BOOT-016");
  auto memory = make_memory(32);
  CHECK(outcome(load_kernel_bytes(*memory, image, Bytes(20 << 20), {.kernel = "k"})) == "BOOT-011");
  CHECK(outcome(load_kernel_bytes(
            *memory, image, {}, {.kernel = "k", .cmdline = std::string(2048, 'x')})) == "BOOT-012");
  CHECK(outcome(load_kernel_bytes(
            *memory, image, {}, {.kernel = "k", .cmdline = std::string("a\0b", 3)})) == "BOOT-012");
}

TEST_CASE("files: a missing, an empty and a foreign kernel each give their own error") {
  auto memory = make_memory(32);
  CHECK(outcome(load_kernel(*memory, {.kernel = "/nonexistent/vmlinuz"})) == "BOOT-001");
  CHECK(outcome(load_kernel(*memory, {.kernel = "/"})) == "BOOT-001");
  const Bytes text = {'#', '!', '/', 'b', 'i', 'n', '/', 's', 'h', '\n'};
  CHECK(outcome(load_kernel_bytes(*memory, text, {}, {.kernel = "k"})) == "BOOT-003");
  CHECK(outcome(load_kernel_bytes(*memory, {}, {}, {.kernel = "k"})) == "BOOT-003");
}
