// A made-up run of a guest, as the software processor would report it to the packet writer.
#pragma once

#include <cstdint>
#include <vector>

#include "ipt/normal_form.h"
#include "ipt/packet_writer.h"
#include "ipt/variation.h"

namespace us::ipt::test {

struct Step {
  enum Kind : uint8_t { kConditional, kIndirect, kFarBranch, kAsync, kMovedExit, kCr3 };
  Kind kind;
  uint64_t a = 0;  // taken; target; from; CR3
  uint64_t b = 0;  // kAsync, kMovedExit: to. kFarBranch: mode
};

constexpr uint64_t kRunStart = 0xffffffff81000000;
constexpr uint64_t kRunEnd = 0xffffffff81abcdef;

inline uint64_t random_address(VariationRandom& random) {
  switch (random.below(6)) {
    case 0: return 0x400000 + random.below(1u << 16);
    case 1: return 0x7f0000000000 + random.below(1u << 30);
    case 2: return random.next();  // not canonical: needs all eight bytes
    case 3: return 0xffffffffc0000000 + random.below(1u << 20);
    default: return 0xffffffff81000000 + random.below(1u << 22);
  }
}

inline std::vector<Step> random_run(uint64_t seed, size_t steps) {
  VariationRandom random(seed);
  std::vector<Step> out;
  for (size_t i = 0; i < steps; ++i) {
    const uint64_t what = random.below(100);
    if (what < 70) {
      out.push_back({Step::kConditional, random.below(2)});
    } else if (what < 90) {
      out.push_back({Step::kIndirect, random_address(random)});
    } else if (what < 93) {
      out.push_back({Step::kFarBranch, random_address(random), random.below(3)});
    } else if (what < 96) {
      out.push_back({Step::kAsync, random_address(random), random_address(random)});
    } else if (what < 98) {
      out.push_back({Step::kMovedExit, random_address(random), random_address(random)});
    } else {
      out.push_back({Step::kCr3, (0x1000 + i) << 12});
    }
  }
  return out;
}

inline void write_step(const Step& step, PacketWriter& writer) {
  switch (step.kind) {
    case Step::kConditional: writer.conditional(step.a != 0); break;
    case Step::kIndirect: writer.indirect(step.a); break;
    case Step::kFarBranch:
      writer.exec_mode(static_cast<uint8_t>(step.b));
      writer.indirect(step.a);
      break;
    case Step::kAsync: writer.async(step.a, step.b); break;
    case Step::kMovedExit:
      writer.exit(step.a);
      writer.enable(step.b);
      break;
    case Step::kCr3: writer.cr3(step.a); break;
  }
}

inline void write_steps(const std::vector<Step>& run, PacketWriter& writer) {
  writer.enable(kRunStart);
  for (const Step& step : run) write_step(step, writer);
  writer.exit(kRunEnd);
  writer.flush();
}

inline Bytes trace_of(const std::vector<Step>& run, const PacketWriterConfig& config = {}) {
  TraceBuffer buffer;
  PacketWriter writer(buffer, config);
  write_steps(run, writer);
  return buffer.take();
}

inline uint64_t branches_of(const std::vector<Step>& run) {
  uint64_t n = 0;
  for (const Step& step : run) n += step.kind == Step::kConditional ? 1 : 0;
  return n;
}

inline EpochBounds bounds_of(const std::vector<Step>& run) {
  EpochBounds bounds;
  bounds.start.rip = kRunStart;
  bounds.end.rip = kRunEnd;
  bounds.end.branches = branches_of(run);
  return bounds;
}

inline EpochDigest digest_of_trace(ByteSpan trace, const EpochBounds& bounds = {}) {
  NormalForm form;
  form.feed(trace);
  return form.end_epoch(bounds);
}

inline EpochDigest digest_of_run(const std::vector<Step>& run,
                                 const PacketWriterConfig& config = {}) {
  return digest_of_trace(trace_of(run, config), bounds_of(run));
}

}  // namespace us::ipt::test
