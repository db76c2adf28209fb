// Scanner and digest against libipt's packet decoder, over the same bytes in the same run; and what
// the packet writer costs the software processor.
//   ipt_bench [TRACE...]   raw Intel PT files besides the made-up ones
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <intel-pt.h>
#include <iterator>
#include <memory>
#include <string>
#include <time.h>
#include <vector>

#include "ipt/normal_form.h"
#include "ipt/packet_writer.h"
#include "ipt/trace_stat.h"
#include "ipt/variation.h"

namespace {

using us::Bytes;
using us::ByteSpan;
using us::ipt::PacketWriter;
using us::ipt::PacketWriterConfig;
using us::ipt::TraceBuffer;
using us::ipt::VariationRandom;

// Many short rounds, of which the best counts: other work on the machine then disturbs least.
constexpr int kRounds = 41;
constexpr size_t kTraceBytes = 4u << 20;

// Processor time of this thread, so that waiting for a core does not count.
double now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double seconds_of(auto work) {
  const double start = now();
  work();
  return now() - start;
}

// A made-up program: functions with loops, branches of different bias, calls and returns. It has
// the habits of real code (loops repeat, most branches lean one way), which is what predictors
// learn.
class Program {
 public:
  explicit Program(uint64_t seed) : random_(seed) {
    for (size_t f = 0; f < kFunctions; ++f) {
      Function one;
      one.at = 0xffffffff81000000 + f * 0x400;
      const uint64_t branches = 1 + random_.below(12);
      for (uint64_t i = 0; i < branches; ++i) one.taken_in_16.push_back(bias());
      one.loops = random_.one_in(3) ? 1 + random_.below(16) : 1;
      one.callee = random_.below(kFunctions);
      one.calls = random_.one_in(3);
      functions_.push_back(one);
    }
  }

  void run(PacketWriter& writer, uint64_t until_bytes) {
    writer.enable(functions_[0].at);
    while (writer.bytes_out() < until_bytes) {
      // Hot functions are called far more often than others.
      const uint64_t hot = random_.below(8) != 0 ? random_.below(24) : random_.below(kFunctions);
      call(functions_[hot], writer, 0);
      if (random_.one_in(2000)) writer.async(functions_[hot].at + 9, 0xffffffff82000000);
    }
    writer.exit(functions_[0].at);
    writer.flush();
  }

 private:
  static constexpr size_t kFunctions = 400;
  struct Function {
    uint64_t at = 0;
    std::vector<uint64_t> taken_in_16;
    uint64_t loops = 1;
    size_t callee = 0;
    bool calls = false;
  };

  uint64_t bias() {
    switch (random_.below(4)) {
      case 0: return 1 + random_.below(15);
      case 1: return 16;
      default: return 0;
    }
  }

  void call(const Function& function, PacketWriter& writer, unsigned depth) {
    for (uint64_t n = function.loops; n != 0; --n) {
      for (const uint64_t taken : function.taken_in_16)
        writer.conditional(random_.below(16) < taken);
      writer.conditional(n != 1);
    }
    if (function.calls && depth < 4) call(functions_[function.callee], writer, depth + 1);
    writer.indirect(function.at + 0x10 * depth);  // the return
  }

  VariationRandom random_;
  std::vector<Function> functions_;
};

Bytes made_up_trace(const PacketWriterConfig& config) {
  TraceBuffer buffer;
  PacketWriter writer(buffer, config);
  Program(1).run(writer, kTraceBytes);
  return buffer.take();
}

uint64_t libipt_pass(Bytes& trace) {
  pt_config config;
  pt_config_init(&config);
  config.begin = trace.data();
  config.end = trace.data() + trace.size();
  pt_packet_decoder* const decoder = pt_pkt_alloc_decoder(&config);
  uint64_t packets = 0;
  while (pt_pkt_sync_forward(decoder) == 0) {
    pt_packet packet;
    int status = 0;
    while ((status = pt_pkt_next(decoder, &packet, sizeof packet)) >= 0) ++packets;
    if (status == -pte_eos) break;
  }
  pt_pkt_free_decoder(decoder);
  return packets;
}

void compare_on(const char* name, Bytes trace) {
  uint64_t packets = 0;
  us::Digest digest;
  double libipt = 1e9, ours = 1e9, portable = 1e9, stat = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    libipt = std::min(libipt, seconds_of([&] { packets = libipt_pass(trace); }));
    const auto scan = [&](bool use_portable) {
      us::ipt::NormalForm form;
      if (use_portable) form.scanner().use_portable_kernel();
      form.feed(trace);
      digest = form.end_epoch().combined();
    };
    ours = std::min(ours, seconds_of([&] { scan(false); }));
    portable = std::min(portable, seconds_of([&] { scan(true); }));
    stat = std::min(stat, seconds_of([&] { (void)us::ipt::trace_stat(trace); }));
  }
  const double gigabytes = static_cast<double>(trace.size()) / 1e9;
  std::printf(
      "%-26s %6.1f MB %5.2f B/pkt | libipt %6.3f GB/s | scan+digest %6.3f GB/s (%4.1fx) | "
      "portable %6.3f | stat %6.3f | %s\n",
      name, gigabytes * 1e3, static_cast<double>(trace.size()) / static_cast<double>(packets),
      gigabytes / libipt, gigabytes / ours, libipt / ours, gigabytes / portable, gigabytes / stat,
      digest.hex().substr(0, 8).c_str());
}

// Throws everything away.
struct NoSink : us::ipt::TraceSink {
  bool accept(ByteSpan) override { return true; }
};

void writer_cost() {
  constexpr uint64_t kEvents = 5'000'000;
  NoSink sink;
  PacketWriter writer(sink, PacketWriterConfig{});
  writer.enable(0x1000);
  double conditional = 1e9, mixed = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    conditional = std::min(conditional, seconds_of([&] {
                             for (uint64_t i = 0; i < kEvents; ++i)
                               writer.conditional((i & 5) == 0);
                           }));
    mixed = std::min(mixed, seconds_of([&] {
                       for (uint64_t i = 0; i < kEvents / 5; ++i) {
                         for (unsigned n = 0; n < 4; ++n) writer.conditional((i & (1u << n)) != 0);
                         writer.indirect(0xffffffff81000000 + (i & 0xfff) * 16);
                       }
                     }));
  }
  std::printf(
      "packet writer: %.2f ns a conditional branch, %.2f ns an event (4 conditional, 1 indirect)\n",
      conditional / kEvents * 1e9, mixed / kEvents * 1e9);
}

// A file, repeated until it is long enough to measure.
Bytes repeated(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const Bytes once{std::istreambuf_iterator<char>(file), {}};
  Bytes out = once;
  while (!once.empty() && out.size() < kTraceBytes / 2)
    out.insert(out.end(), once.begin(), once.end());
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  compare_on("made up", made_up_trace({}));
  compare_on("made up, padded", made_up_trace({.variation = {.seed = 1, .padding = true}}));
  compare_on("made up, long TNTs", made_up_trace({.long_tnt = true}));
  for (int i = 1; i < argc; ++i) {
    Bytes trace = repeated(argv[i]);
    if (trace.empty()) {
      std::fprintf(stderr, "cannot read %s\n", argv[i]);
      return 1;
    }
    const std::string path = argv[i];
    compare_on(path.substr(path.find_last_of('/') + 1).c_str(), std::move(trace));
  }
  writer_cost();
  return 0;
}
