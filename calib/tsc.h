// The host's time stamp counter against a clock of the kernel's: its rate, and how that drifts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace us::calib {

// One look at both.
struct TscSample {
  uint64_t tsc = 0;
  uint64_t clock_ns = 0;  // CLOCK_MONOTONIC_RAW
  bool operator==(const TscSample&) const = default;
};
// Of several looks the one whose two readings of the counter, before and after the clock's, lie
// closest together.
TscSample read_tsc();
// What the kernel reads its clocks from: "tsc", "hpet", "kvm-clock"; empty: it does not say. With
// "tsc" the clock follows the very counter, and what is measured is the kernel's notion of it.
std::string clock_source();

// Samples of one process, in order. Between stretches the host may have slept, or begun anew.
using TscStretch = std::vector<TscSample>;

struct TscRate {
  double hz = 0, hz_low = 0, hz_high = 0;  // ticks a second
  // Change of the rate, in parts per million an hour.
  double drift = 0, drift_low = 0, drift_high = 0;
  double seconds = 0;  // that the stretches span
  uint64_t samples = 0;
};
// Intervals hold with `confidence` each: by the spread of the rates of equal pieces of time, which
// says how much the rate wanders as well as how well it was read. Nothing: too few samples, or a
// counter or clock that does not run.
std::optional<TscRate> tsc_rate(const std::vector<TscStretch>& stretches, double confidence);

}  // namespace us::calib
