#include "ipt/decode/block_decoder.h"

#include <doctest/doctest.h>

#include "ipt/packet_writer.h"

namespace us::ipt {
namespace {

constexpr uint64_t kBase = 0x40'0000;
// 0: test eax, eax   2: jz 6   4: inc ecx   6: dec eax   8: jnz 0   10: jmp rax
constexpr uint8_t kCode[] = {0x85, 0xc0, 0x74, 0x02, 0xff, 0xc1,
                             0xff, 0xc8, 0x75, 0xf6, 0xff, 0xe0};

size_t read_code(std::optional<uint64_t>, uint64_t ip, std::span<uint8_t> out) {
  if (ip < kBase || ip >= kBase + sizeof kCode) return 0;
  const size_t n = std::min<size_t>(out.size(), kBase + sizeof kCode - ip);
  std::memcpy(out.data(), kCode + (ip - kBase), n);
  return n;
}

Bytes trace_of(const std::function<void(PacketWriter&)>& run) {
  TraceBuffer buffer;
  PacketWriter writer(buffer, {});
  writer.enable(kBase);
  run(writer);
  writer.flush();
  return buffer.take();
}

TEST_CASE("a loop's branches come back as blocks, each from where the last one led") {
  const Bytes trace = trace_of([](PacketWriter& w) {
    w.conditional(false);  // jz not taken
    w.conditional(true);   // jnz back
    w.conditional(true);   // jz taken
    w.conditional(false);  // jnz not taken
    w.indirect(kBase);     // jmp rax
    w.conditional(false);
    w.exit(kBase + 4);
  });
  BlockDecoder decoder(trace, read_code);
  std::vector<std::pair<uint64_t, uint64_t>> blocks;
  uint64_t instructions = 0;
  while (const auto block = decoder.next()) {
    blocks.emplace_back(block->ip - kBase, block->end_ip - kBase);
    instructions += block->instructions;
    CHECK(block->resumed == (blocks.size() == 1));
  }
  CHECK(!decoder.error());
  const std::vector<std::pair<uint64_t, uint64_t>> expected = {{0, 2}, {4, 8},   {0, 2},
                                                               {6, 8}, {10, 10}, {0, 2}};
  CHECK(blocks == expected);
  CHECK(instructions == 2 + 3 + 2 + 2 + 1 + 2);
}

TEST_CASE("a trace that leads where no code is ends with an error and its offset") {
  const Bytes trace = trace_of([](PacketWriter& w) {
    w.conditional(false);
    w.conditional(false);
    w.indirect(0x1234);
    w.conditional(true);
    w.exit(0x1234);
  });
  BlockDecoder decoder(trace, read_code);
  while (decoder.next()) {
  }
  REQUIRE(decoder.error());
  CHECK(decoder.error()->find("the trace does not fit the code") == 0);
}

TEST_CASE("an empty trace, one without a PSB and one cut anywhere end without a crash") {
  BlockDecoder nothing({}, read_code);
  CHECK(!nothing.next());
  const Bytes noise(100, 0x55);
  BlockDecoder no_psb(noise, read_code);
  CHECK(!no_psb.next());
  const Bytes whole = trace_of([](PacketWriter& w) {
    for (int i = 0; i < 20; ++i) w.conditional(i % 2 != 0);
    w.exit(kBase);
  });
  for (size_t n = 0; n <= whole.size(); ++n) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n));
    BlockDecoder decoder(cut, read_code);
    size_t blocks = 0;
    while (decoder.next()) ++blocks;
    CHECK(blocks <= 40);
  }
}

TEST_CASE("a bound on blocks ends a loop that never does") {
  const Bytes trace = trace_of([](PacketWriter& w) {
    for (int i = 0; i < 1000; ++i) w.conditional(i % 2 != 0);
    w.exit(kBase);
  });
  BlockDecoder decoder(trace, read_code, {.blocks_max = 10});
  size_t blocks = 0;
  while (decoder.next()) ++blocks;
  CHECK(blocks <= 10);
  REQUIRE(decoder.error());
  CHECK(*decoder.error() == "too many blocks");
}

}  // namespace
}  // namespace us::ipt
