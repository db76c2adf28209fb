#include "replay-engine/diverge/fork_trace.h"

#include <fmt/format.h>

#include "ipt/decode/block_decoder.h"
#include "replay-engine/diverge/guest_view.h"

namespace us::replay {
namespace {

constexpr uint64_t kBlocksMax = 100'000;

struct Path {
  std::vector<ipt::CodeBlock> blocks;
  std::optional<std::string> error;
};

Path decode(ByteSpan trace, const hv::Machine& machine) {
  ipt::BlockDecoder decoder(
      trace,
      [&machine](std::optional<uint64_t> cr3, uint64_t ip, std::span<uint8_t> out) {
        return cr3 ? read_guest_as(machine, *cr3, ip, out) : read_guest(machine, ip, out);
      },
      {.blocks_max = kBlocksMax});
  Path path;
  while (const auto block = decoder.next()) path.blocks.push_back(*block);
  path.error = decoder.error();
  return path;
}

bool same(const ipt::CodeBlock& a, const ipt::CodeBlock& b) {
  return a.ip == b.ip && a.end_ip == b.end_ip && a.instructions == b.instructions;
}

// The first block that is not on both sides begins where the fork leads, or an event cut it short
// on one side and its end is the fork's place.
bool agrees(const Fork& fork, const Path& a, const Path& b, size_t apart) {
  const ipt::CodeBlock &left = a.blocks[apart], &right = b.blocks[apart];
  if (left.ip != right.ip)
    return (left.ip == fork.to_a || fork.taken_b) && (right.ip == fork.to_b || fork.taken_a) &&
           (fork.kind == ForkKind::kEvent || apart == 0 ||
            a.blocks[apart - 1].end_ip == fork.at.rip);
  const Path& longer = left.instructions > right.instructions ? a : b;
  const Path& shorter = &longer == &a ? b : a;
  const uint64_t to = &shorter == &a ? fork.to_a : fork.to_b;
  return apart + 1 < shorter.blocks.size() && shorter.blocks[apart + 1].ip == to;
}

}  // namespace

void decode_fork(Fork& fork, ByteSpan trace_a, ByteSpan trace_b, const hv::Machine& a,
                 const hv::Machine& b) {
  const Path in_a = decode(trace_a, a), in_b = decode(trace_b, b);
  size_t apart = 0;
  while (apart < in_a.blocks.size() && apart < in_b.blocks.size() &&
         same(in_a.blocks[apart], in_b.blocks[apart]))
    ++apart;
  if (apart == in_a.blocks.size() || apart == in_b.blocks.size()) {
    fork.decoded = "decoded, the traces show no difference";
    for (const Path* path : {&in_a, &in_b})
      if (path->error) fork.decoded += "; " + *path->error;
    return;
  }
  fork.decoded_agrees = agrees(fork, in_a, in_b, apart);
  fork.decoded =
      fmt::format("decoded, the traces are the same for {} blocks and part {}: {:#x} against {:#x}",
                  apart, *fork.decoded_agrees ? "here too" : "elsewhere", in_a.blocks[apart].ip,
                  in_b.blocks[apart].ip);
}

}  // namespace us::replay
