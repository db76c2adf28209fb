#include "calib/tsc.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>
#include <x86intrin.h>

#include "calib/statistics.h"

namespace us::calib {
namespace {

constexpr int kLooks = 16;
constexpr size_t kPieces = 8;     // of the time, to compare
constexpr size_t kPiecesMin = 4;  // below this there is no spread to speak of

uint64_t raw_clock_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// A piece of the time, and how many ticks it had.
struct Piece {
  double begin_s = 0, seconds = 0, ticks = 0;
  double middle_s() const { return begin_s + seconds / 2; }
  double rate() const { return ticks / seconds; }
};

Piece between(const TscSample& a, const TscSample& b, uint64_t origin_ns) {
  return {.begin_s = static_cast<double>(a.clock_ns - origin_ns) * 1e-9,
          .seconds = static_cast<double>(b.clock_ns - a.clock_ns) * 1e-9,
          .ticks = static_cast<double>(b.tsc - a.tsc)};
}

bool runs(const TscStretch& stretch) {
  return stretch.size() >= 2 && std::adjacent_find(stretch.begin(), stretch.end(),
                                                   [](const TscSample& a, const TscSample& b) {
                                                     return b.tsc <= a.tsc ||
                                                            b.clock_ns <= a.clock_ns;
                                                   }) == stretch.end();
}

double span_s(const TscStretch& stretch) {
  return between(stretch.front(), stretch.back(), stretch.front().clock_ns).seconds;
}

// Cuts a stretch into pieces of at least `wanted_s`; what is left at its end goes to the last.
void cut(const TscStretch& stretch, double wanted_s, uint64_t origin_ns,
         std::vector<Piece>& pieces) {
  size_t from = 0;
  const size_t before = pieces.size();
  for (size_t i = 1; i < stretch.size(); ++i) {
    const Piece piece = between(stretch[from], stretch[i], origin_ns);
    if (piece.seconds < wanted_s) continue;
    pieces.push_back(piece);
    from = i;
  }
  if (from + 1 == stretch.size()) return;
  const Piece rest = between(stretch[from], stretch.back(), origin_ns);
  if (pieces.size() == before || rest.seconds > wanted_s / 2) {
    pieces.push_back(rest);
    return;
  }
  pieces.back().seconds += rest.seconds;
  pieces.back().ticks += rest.ticks;
}

// A line through rates against time: the slope, and what it may be off by.
void fit_drift(const std::vector<Piece>& pieces, double confidence, TscRate& out) {
  const double n = static_cast<double>(pieces.size());
  double mean_t = 0, mean_r = 0;
  for (const Piece& p : pieces) mean_t += p.middle_s() / n, mean_r += p.rate() / n;
  double tt = 0, tr = 0, rest = 0;
  for (const Piece& p : pieces) {
    tt += (p.middle_s() - mean_t) * (p.middle_s() - mean_t);
    tr += (p.middle_s() - mean_t) * (p.rate() - mean_r);
  }
  const double slope = tr / tt;
  for (const Piece& p : pieces) {
    const double off = p.rate() - mean_r - slope * (p.middle_s() - mean_t);
    rest += off * off;
  }
  const double half = student_limit(confidence, n - 2) * std::sqrt(rest / (n - 2) / tt);
  const double to_ppm_an_hour = 3600 * 1e6 / mean_r;
  out.drift = slope * to_ppm_an_hour;
  out.drift_low = (slope - half) * to_ppm_an_hour;
  out.drift_high = (slope + half) * to_ppm_an_hour;
}

}  // namespace

TscSample read_tsc() {
  TscSample best;
  uint64_t closest = ~uint64_t{0};
  for (int i = 0; i < kLooks; ++i) {
    unsigned aux;
    const uint64_t before = __rdtscp(&aux);
    const uint64_t clock = raw_clock_ns();
    const uint64_t after = __rdtscp(&aux);
    if (after - before >= closest) continue;
    closest = after - before;
    best = {.tsc = before + closest / 2, .clock_ns = clock};
  }
  return best;
}

std::string clock_source() {
  std::ifstream file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  std::string name;
  std::getline(file, name);
  return name;
}

std::optional<TscRate> tsc_rate(const std::vector<TscStretch>& stretches, double confidence) {
  TscRate out;
  uint64_t origin_ns = ~uint64_t{0};
  for (const TscStretch& stretch : stretches) {
    if (!runs(stretch)) continue;
    out.seconds += span_s(stretch);
    out.samples += stretch.size();
    origin_ns = std::min(origin_ns, stretch.front().clock_ns);
  }
  std::vector<Piece> pieces;
  for (const TscStretch& stretch : stretches)
    if (runs(stretch)) cut(stretch, out.seconds / kPieces, origin_ns, pieces);
  if (pieces.size() < kPiecesMin) return std::nullopt;
  double ticks = 0;
  for (const Piece& p : pieces) ticks += p.ticks;
  out.hz = ticks / out.seconds;
  double spread = 0;
  for (const Piece& p : pieces)
    spread += p.seconds / out.seconds * (p.rate() - out.hz) * (p.rate() - out.hz);
  const double freedom = static_cast<double>(pieces.size()) - 1;
  const double half = student_limit(confidence, freedom) * std::sqrt(spread / freedom);
  out.hz_low = out.hz - half;
  out.hz_high = out.hz + half;
  fit_drift(pieces, confidence, out);
  return out;
}

}  // namespace us::calib
