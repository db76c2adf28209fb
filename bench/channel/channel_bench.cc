// Prints throughput and latency of the log channel beside those of plain Asio and plain sockets,
// measured in turns in this very run, and the goals that docs/SPECIFICATION.md sets.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "measure.h"

namespace us::log::bench {
namespace {

constexpr int kRounds = 9;
constexpr int kPingRounds = 10;
constexpr size_t kMiB = 1024 * 1024;
constexpr double kThroughputGoal = 0.8, kMedianGoal = 1.5, kP99Goal = 3;

template <class T>
T quantile(std::vector<T> values, double q) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(q * values.size()))];
}

void throughput(bool tls, size_t write_bytes, size_t total) {
  std::vector<double> ours, theirs, ratios;
  for (int round = 0; round < kRounds; ++round) {
    const double link = total / link_throughput(tls, total, write_bytes).count();
    const double plain = total / plain_throughput(tls, total, write_bytes).count();
    ours.push_back(link);
    theirs.push_back(plain);
    ratios.push_back(link / plain);
  }
  std::printf(
      "throughput %-9s %4zu KiB frames: channel %6.0f MB/s, Asio %6.0f MB/s, ratio %.2f "
      "(goal: at least %.1f)\n",
      tls ? "TLS" : "plaintext", write_bytes / 1024, quantile(ours, 0.5) / 1e6,
      quantile(theirs, 0.5) / 1e6, quantile(ratios, 0.5), kThroughputGoal);
}

void add(std::vector<Micros>& all, const std::vector<Micros>& more) {
  // The first ones warm up caches and the path.
  all.insert(all.end(), more.begin() + kPingsAtOnce / 10, more.end());
}

void latency() {
  std::vector<Micros> raw, plaintext, tls;
  for (int round = 0; round < kPingRounds; ++round) {
    add(raw, plain_pings());
    add(plaintext, link_pings(false));
    add(tls, link_pings(true));
  }
  const double raw_median = quantile(raw, 0.5).count(), raw_p99 = quantile(raw, 0.99).count();
  std::printf("round trip plain sockets: median %.1f us, p99 %.1f us\n", raw_median, raw_p99);
  for (const auto& [name, times] : {std::pair("plaintext", &plaintext), std::pair("TLS", &tls)}) {
    const double median = quantile(*times, 0.5).count(), p99 = quantile(*times, 0.99).count();
    std::printf(
        "round trip channel, %-9s: median %.1f us, p99 %.1f us; ratios %.2f and %.2f "
        "(goals: at most %.1f and %.0f)\n",
        name, median, p99, median / raw_median, p99 / raw_p99, kMedianGoal, kP99Goal);
  }
}

}  // namespace
}  // namespace us::log::bench

int main() {
  using namespace us::log::bench;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  for (const bool tls : {false, true}) {
    throughput(tls, 256 * 1024, 512 * kMiB);
    throughput(tls, 16 * 1024, 256 * kMiB);
    throughput(tls, 1024, 32 * kMiB);
  }
  latency();
  return EXIT_SUCCESS;
}
