// The capture on the processor itself: this thread is traced, as far as the kernel lets it, and
// every stretch must be whole. Exit code 77 where there is nothing to try.
#include <cerrno>
#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>

#include "base/check.h"
#include "ipt/capture/capture.h"

namespace us::ipt {
namespace {

constexpr int kSkipped = 77;
constexpr int kStretches = 20;

class Nobody final : public TraceSink {
 public:
  bool accept(ByteSpan bytes) override {
    accepted += bytes.size();
    return true;
  }
  void lost(uint32_t flags) override { losses |= flags; }
  uint64_t accepted = 0;
  uint32_t losses = 0;
};

int skipped(const UserError& error) {
  fmt::print(stderr, "SKIPPED: {}: {}\n", error.what, error.seen);
  return kSkipped;
}

uint64_t branch_about(uint64_t rounds) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < rounds; ++i) {
    if ((i * 2654435761u >> 7 & 1) != 0) sum += i;
    asm volatile("" : "+r"(sum));
  }
  return sum;
}

int run() {
  const auto host = real_trace_host();
  const auto pmu = find_trace_pmu(*host);
  if (!pmu.ok()) return skipped(pmu.error());
  Nobody sink;
  CaptureOptions options;
  options.aux.thread = ::getpid();
  options.aux.aux_bytes = size_t{4} << 20;
  auto capture = Capture::open(*host, *pmu, options, sink, 0);
  if (!capture.ok()) return skipped(capture.error());
  for (int i = 0; i < kStretches; ++i) {
    branch_about(100'000);
    const uint64_t before = (*capture)->statistics().bytes;
    (*capture)->cut(0);
    US_CHECK((*capture)->statistics().bytes > before, "stretch {} has no trace", i);
  }
  (*capture)->stop(0);
  TraceLoss loss;
  loss.aux_flags = sink.losses;
  fmt::print("{} bytes of {} stretches; lost: {}\n", (*capture)->statistics().bytes, kStretches,
             loss.any() ? loss.reason() : "nothing");
  US_CHECK(sink.losses == 0, "trace was lost: {}", loss.reason());
  US_CHECK(sink.accepted == 0, "{} bytes of a guest that there is not", sink.accepted);
  return 0;
}

}  // namespace
}  // namespace us::ipt

int main() { return us::ipt::run(); }
