#include <cstring>
#include <doctest/doctest.h>

#include "hv/boot/layout.h"
#include "tests/unit/boot/images.h"

using namespace us;
using namespace us::hv;
using namespace us::hv::testing;

namespace {

// A flat image with addresses in its header: file offset 0 loads at `load`.
Bytes kludge_image(uint32_t load, uint32_t load_end, uint32_t bss_end, uint32_t entry) {
  ByteWriter out;
  out.put_bytes(multiboot_header(1 << 16));
  for (const uint32_t field : {load, load, load_end, bss_end, entry}) out.put(field);
  Bytes image = out.take();
  image.resize(256, 0x90);
  return image;
}

}  // namespace

TEST_CASE("32-bit and 64-bit ELF with a Multiboot header are entered with magic and information") {
  for (const bool is_64 : {false, true}) {
    CAPTURE(is_64);
    auto memory = make_memory(32);
    const Bytes image = make_elf({.is_64 = is_64,
                                  .entry = 0x40'0000,
                                  .segments = {{0x40'0000, Bytes(64, 0xf4), 0}},
                                  .before_segments = multiboot_header(3)});
    const Bytes initrd(100, 0x22);
    const auto state = load_kernel_bytes(
        *memory, image, initrd, {.kernel = "dir/t.flat", .initrd = "env", .cmdline = "1 2"});
    REQUIRE(outcome(state) == "ok");
    CHECK(state->protocol == BootProtocol::kMultiboot1);
    CHECK_FALSE(state->long_mode);
    CHECK(state->rip == 0x40'0000);
    CHECK(state->gpr[0] == 0x2badb002);
    const uint64_t info = state->gpr[3];
    CHECK(peek<uint32_t>(*memory, info) == 0x24d);
    CHECK(peek<uint32_t>(*memory, info + 4) == kLowMemoryEnd / 1024);
    CHECK(peek<uint32_t>(*memory, info + 8) == 31 * 1024);
    // The same wherever the file lies: a recording has it under another name.
    CHECK(peek_string(*memory, peek<uint32_t>(*memory, info + 16)) == "kernel 1 2");
    REQUIRE(peek<uint32_t>(*memory, info + 20) == 1);
    const uint32_t module = peek<uint32_t>(*memory, info + 24);
    const uint32_t start = peek<uint32_t>(*memory, module);
    CHECK(peek<uint32_t>(*memory, module + 4) - start == 100);
    CHECK(peek<uint8_t>(*memory, start) == 0x22);
    CHECK(peek_string(*memory, peek<uint32_t>(*memory, module + 8)).empty());
    CHECK(peek<uint32_t>(*memory, info + 44) == 4 * 24);
    const uint32_t map = peek<uint32_t>(*memory, info + 48);
    CHECK(peek<uint32_t>(*memory, map) == 20);
    CHECK(peek<uint64_t>(*memory, map + 4 + 3 * 24) == 0x10'0000);
    CHECK(peek_string(*memory, peek<uint32_t>(*memory, info + 64)) == "Understudy");
  }
}

TEST_CASE("an image with addresses in its Multiboot header is loaded by them") {
  auto memory = make_memory(32);
  const Bytes image = kludge_image(0x10'0000, 0, 0x10'1000, 0x10'0020);
  const auto state = load_kernel_bytes(*memory, image, {}, {.kernel = "k"});
  REQUIRE(outcome(state) == "ok");
  CHECK(state->rip == 0x10'0020);
  CHECK(peek<uint32_t>(*memory, 0x10'0000) == 0x1badb002);
  CHECK(peek<uint8_t>(*memory, 0x10'00ff) == 0x90);
}

TEST_CASE("a small Multiboot image may lie where no boot structure does, below 1 MiB") {
  auto memory = make_memory(32);
  const Bytes image = kludge_image(0x8000, 0, 0x2'0000, 0x8020);
  const auto state = load_kernel_bytes(*memory, image, {}, {.kernel = "k", .cmdline = "1 2"});
  REQUIRE(outcome(state) == "ok");
  CHECK(state->rip == 0x8020);
  CHECK(peek<uint32_t>(*memory, 0x8000) == 0x1badb002);
  const uint32_t map = peek<uint32_t>(*memory, state->gpr[3] + 48);
  CHECK(map + 4 * 24 <= 0x8000);
  CHECK(peek_string(*memory, peek<uint32_t>(*memory, state->gpr[3] + 16)) == "kernel 1 2");
}

TEST_CASE("Multiboot headers that lie are refused") {
  auto memory = make_memory(32);
  const auto load = [&](const Bytes& image) {
    return outcome(load_kernel_bytes(*memory, image, {}, {.kernel = "k"}));
  };
  CHECK(load(kludge_image(0x10'0000, 0x20'0000, 0, 0x10'0020)) == "BOOT-013");
  CHECK(load(kludge_image(0x10'0000, 0x0f'0000, 0, 0x10'0020)) == "BOOT-013");
  CHECK(load(kludge_image(0x10'0000, 0, 0xffff'f000, 0x10'0020)) == "BOOT-009");
  CHECK(load(kludge_image(0x10'0000, 0, 0, 0x20'0000)) == "BOOT-014");
  CHECK(load(kludge_image(0x7000, 0, 0, 0x7020)) == "BOOT-010");
  CHECK(load(kludge_image(0x8000, 0, 0x2'0001, 0x8020)) == "BOOT-010");
  CHECK(load(multiboot_header(1 << 16)) == "BOOT-013");
  CHECK(load(multiboot_header(1 << 2)) == "BOOT-013");
  CHECK(load(multiboot_header(0)) == "BOOT-004");
  Bytes moved = kludge_image(0x10'0000, 0, 0, 0x10'0020);
  moved[12] = 0xff;  // header address below the load address's reach
  moved[14] = 0x7f;
  CHECK(load(moved) == "BOOT-013");
}

TEST_CASE("a header with a wrong checksum or past 8 KiB is no Multiboot header") {
  auto memory = make_memory(32);
  Bytes bad = multiboot_header(0);
  bad[8] ^= 1;
  bad.resize(64);
  CHECK(outcome(load_kernel_bytes(*memory, bad, {}, {.kernel = "k"})) == "BOOT-003");
  Bytes late(8188, 0);
  const Bytes header = multiboot_header(0);
  late.insert(late.end(), header.begin(), header.end());
  CHECK(outcome(load_kernel_bytes(*memory, late, {}, {.kernel = "k"})) == "BOOT-003");
}
