#include "calib/pareto.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "calib/statistics.h"

namespace us::calib {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr double kTinyShape = 1e-9;
// Cells of a likelihood: the largest values each in one of their own, the rest in so many.
constexpr size_t kTopCells = 60;
constexpr size_t kBodyCells = 140;

// Where `f` is greatest in [low, high], by a grid and then the golden section.
template <class F>
double maximise(F f, double low, double high, int grid, int sections) {
  double best = low, best_value = kNever;
  const double step = (high - low) / grid;
  for (int i = 0; i <= grid; ++i) {
    const double x = low + step * i;
    if (const double value = f(x); value > best_value) {
      best = x;
      best_value = value;
    }
  }
  double a = std::max(low, best - step), b = std::min(high, best + step);
  constexpr double kGolden = 0.6180339887498949;
  double c = b - kGolden * (b - a), d = a + kGolden * (b - a);
  double fc = f(c), fd = f(d);
  for (int i = 0; i < sections; ++i) {
    if (fc > fd) {
      b = d;
      d = c;
      fd = fc;
      fc = f(c = b - kGolden * (b - a));
    } else {
      a = c;
      c = d;
      fc = fd;
      fd = f(d = a + kGolden * (b - a));
    }
  }
  const double x = (a + b) / 2;
  return f(x) >= best_value ? x : best;
}

}  // namespace

double Pareto::log_survival(double t) const {
  if (t <= 0) return 0;
  if (std::abs(shape) < kTinyShape) return -t / scale;
  const double inside = shape * t / scale;
  return inside <= -1 ? kNever : -std::log1p(inside) / shape;
}

Excesses::Excesses(const Histogram& samples, uint64_t threshold) : threshold_(threshold) {
  std::vector<std::pair<uint64_t, uint64_t>> values;
  double sum = 0;
  for (auto i = samples.counts().lower_bound(threshold); i != samples.counts().end(); ++i) {
    values.emplace_back(i->first - threshold, i->second);
    count_ += i->second;
    sum += static_cast<double>(i->first - threshold) * static_cast<double>(i->second);
  }
  US_CHECK(count_ > 0, "no sample from {} on", threshold);
  distinct_ = values.size();
  largest_ = values.back().first;
  mean_ = sum / static_cast<double>(count_);
  const size_t body = distinct_ > kTopCells ? distinct_ - kTopCells : 0;
  const size_t a_cell = (body + kBodyCells - 1) / kBodyCells;
  for (size_t i = 0; i < distinct_;) {
    const size_t next = std::min(i < body ? std::min(i + a_cell, body) : i + 1, distinct_);
    // A cell of several values reaches to the next one's first; one of one value has that alone.
    const bool several = next - i > 1;
    Cell cell{static_cast<double>(values[i].first),
              static_cast<double>(several && next < distinct_ ? values[next].first
                                                              : values[next - 1].first + 1),
              0};
    for (; i < next; ++i) cell.count += static_cast<double>(values[i].second);
    cells_.push_back(cell);
  }
}

double Excesses::log_likelihood(const Pareto& pareto) const {
  double sum = 0;
  for (const Cell& cell : cells_) {
    const double begin = pareto.log_survival(cell.begin), end = pareto.log_survival(cell.end);
    if (begin == kNever) return kNever;
    const double inside = end == kNever ? 1 : -std::expm1(end - begin);
    if (inside <= 0) return kNever;
    sum += cell.count * (begin + std::log(inside));
  }
  return sum;
}

std::optional<double> Excesses::goodness(const Pareto& fitted) const {
  constexpr double kExpectedMin = 8;
  const double total = static_cast<double>(count_);
  double statistic = 0, observed = 0, from = 0;  // survival at the cell's begin: exp(from)
  int cells = 0;
  const auto close = [&](double expected) {
    statistic += (observed - expected) * (observed - expected) / expected;
    ++cells;
    observed = 0;
  };
  for (size_t i = 0; i < cells_.size(); ++i) {
    observed += cells_[i].count;
    const double end = i + 1 < cells_.size() ? cells_[i + 1].begin : cells_[i].end;
    const double to = fitted.log_survival(end);
    const double expected = total * (std::exp(from) - std::exp(to));
    const double rest = total * std::exp(to);
    if (i + 1 == cells_.size() || rest < kExpectedMin) {
      for (size_t j = i + 1; j < cells_.size(); ++j) observed += cells_[j].count;
      close(std::max(total * std::exp(from), 1e-9));
      break;
    }
    if (expected < kExpectedMin) continue;
    close(expected);
    from = to;
  }
  if (cells < 4) return std::nullopt;
  return chi_squared_tail(statistic, cells - 3);  // the total and two parameters are taken
}

ParetoFit fit(const Excesses& excesses) {
  const double mean = std::max(excesses.mean(), 0.01);
  const auto best_scale = [&](double shape) {
    const double floor = shape < 0 ? -shape * static_cast<double>(excesses.largest()) : 0;
    const double low = std::log(std::max(mean * 1e-3, floor * (1 + 1e-12) + 1e-6));
    const double high = std::log(std::max(mean, floor) * 50 + 1);
    const double at = maximise(
        [&](double s) { return excesses.log_likelihood({.scale = std::exp(s), .shape = shape}); },
        low, high, 12, 34);
    return std::exp(at);
  };
  const double shape = maximise(
      [&](double x) { return excesses.log_likelihood({.scale = best_scale(x), .shape = x}); },
      kShapeMin, kShapeMax, 12, 22);
  const Pareto best{.scale = best_scale(shape), .shape = shape};
  return {best, excesses.log_likelihood(best)};
}

ParetoFit fit_through(const Excesses& excesses, double t, double log_survival) {
  const auto through = [&](double shape) {
    const double scale = std::abs(shape) < kTinyShape
                             ? -t / log_survival
                             : shape * t / std::expm1(-shape * log_survival);
    return Pareto{.scale = scale, .shape = shape};
  };
  const double shape = maximise([&](double x) { return excesses.log_likelihood(through(x)); },
                                kShapeMin, kShapeMax, 24, 34);
  const Pareto best = through(shape);
  return {best, excesses.log_likelihood(best)};
}

}  // namespace us::calib
