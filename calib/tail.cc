#include "calib/tail.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace us::calib {
namespace {

constexpr uint64_t kNoBound = std::numeric_limits<uint64_t>::max();
constexpr double kCeilingChance = 1e-6;
// Below this many expected beyond it, a quantile is no matter of order statistics any more.
constexpr double kEnoughBeyond = 30;
constexpr uint64_t kExcessesMin = 200;
// Shares of the samples that thresholds are tried at, from the lowest threshold up: the lowest
// that fits has the most to say.
constexpr double kShares[] = {1,    0.8,  0.6,  0.4,  0.25,  0.15, 0.1,
                              0.06, 0.04, 0.02, 0.01, 0.005, 0.002};
constexpr double kFits = 0.05;

double as_real(uint64_t n) { return static_cast<double>(n); }

// An upper estimate of the chance that a sample which reaches the largest value goes no further,
// were the tail to go on as just below it: the rate at which samples end there, by those that do
// (30, or all), with its error and four times over, since rates may rise.
double going_no_further(const Histogram& samples) {
  const auto& counts = samples.counts();
  const uint64_t top = samples.max();
  double ended = 0, exposed = 0, reaching = as_real(samples.count_of(top));
  uint64_t above = top;
  for (auto i = std::next(counts.rbegin()); i != counts.rend() && ended < 30; ++i) {
    exposed += reaching * as_real(above - i->first - 1);
    reaching += as_real(i->second);
    exposed += reaching;
    ended += as_real(i->second);
    above = i->first;
  }
  if (ended < 30) exposed += reaching * as_real(above);  // nothing ended below the least value
  return std::min(4 * (ended + 3 * std::sqrt(ended) + 7) / (exposed + 14), 0.98);
}

}  // namespace

std::string_view name_of(TailKind kind) {
  switch (kind) {
    case TailKind::kCeiling: return "ceiling";
    case TailKind::kFitted: return "pareto";
    case TailKind::kTooFewToFit: return "unknown";
  }
  return "?";
}

double TailFit::exceedance(const Histogram& seen, double x) const {
  const bool inside = kind != TailKind::kFitted || x <= as_real(threshold);
  if (inside)
    return as_real(seen.count_from(static_cast<uint64_t>(std::ceil(x)))) / as_real(samples);
  return as_real(excesses) / as_real(samples) *
         std::exp(pareto.log_survival(x - as_real(threshold)));
}

Tail::Tail(const Histogram& samples) : samples_(samples) {
  fit_.samples = samples.samples();
  fit_.largest = samples.max();
  if (samples.empty()) return;
  fit_.at_ceiling = samples.count_of(fit_.largest);
  fit_.ceiling_chance = std::pow(going_no_further(samples), as_real(fit_.at_ceiling - 1));
  if (fit_.ceiling_chance < kCeilingChance) {
    fit_.kind = TailKind::kCeiling;
    return;
  }
  for (const double share : kShares) {
    const auto rank = static_cast<uint64_t>((1 - share) * as_real(fit_.samples));
    Excesses excesses(samples, samples.at_rank(std::min(rank, fit_.samples - 1)));
    if (excesses.count() < kExcessesMin || excesses.distinct() < 3) break;
    const ParetoFit fitted = calib::fit(excesses);
    const double goodness = excesses.goodness(fitted.pareto).value_or(1);
    fit_.kind = TailKind::kFitted;
    fit_.threshold = excesses.threshold();
    fit_.excesses = excesses.count();
    fit_.pareto = fitted.pareto;
    fit_.goodness = goodness;
    log_likelihood_ = fitted.log_likelihood;
    excesses_ = std::move(excesses);
    if (goodness >= kFits) return;
  }
}

Interval Tail::reach(double chance, double confidence) const {
  if (samples_.empty()) return {0, 0, kNoBound};
  // Whatever the tail's form, the samples bound it from below, and from above where enough of
  // them lie beyond. The least m with P(skid >= m) <= chance is one above a quantile.
  const Interval seen = quantile(samples_, 1 - chance, confidence);
  const bool enough = as_real(fit_.samples) * chance >= kEnoughBeyond;
  Interval out{seen.estimate + 1, seen.low + 1, enough ? seen.high + 1 : kNoBound};
  if (enough) return out;
  if (fit_.kind == TailKind::kCeiling) {
    out.estimate = out.high = fit_.largest + 1;
  } else if (fit_.kind == TailKind::kFitted) {
    const Interval fitted = from_fit(chance, confidence);
    out = {std::max(fitted.estimate, out.low), std::min(fitted.low, out.low), fitted.high};
    out.high = std::max(out.high, out.estimate);
  }
  return out;
}

// By profile likelihood: the values z for P(skid >= z) = chance that some distribution explains
// the excesses with nearly as well as the best does. The share of excesses has an error of its own,
// which each end takes its half of.
Interval Tail::from_fit(double chance, double confidence) const {
  const double n = as_real(fit_.samples), k = as_real(fit_.excesses);
  const double share = k / n;
  // Where the tail ends abruptly the likelihood's limit has two degrees of freedom.
  const double freedom = fit_.pareto.shape < -0.5 ? 2 : 1;
  const double worst = log_likelihood_ - chi_squared_limit(confidence, freedom) / 2;
  const double error = 3 * std::sqrt((1 - share) / k);
  const auto log_at = [&](double by) { return std::log(chance / (share * (1 + by))); };
  const auto explains = [&](double t, double by) {
    return fit_through(*excesses_, t, log_at(by)).log_likelihood >= worst;
  };
  const double log_survival = log_at(0);
  const auto at = [&](const Pareto& p) {
    return std::abs(p.shape) < 1e-9 ? -p.scale * log_survival
                                    : p.scale * std::expm1(-p.shape * log_survival) / p.shape;
  };
  const double best = std::max(at(fit_.pareto), 1e-3);
  double low = 0, good = best;
  for (int i = 0; i < 40; ++i) {
    const double middle = (low + good) / 2;
    (explains(middle, -std::min(error, 0.9)) ? good : low) = middle;
  }
  double reached = best, beyond = best * 1.05 + 1;
  constexpr double kFar = 1e15;
  while (beyond < kFar && explains(beyond, error)) {
    reached = beyond;
    beyond = best + (beyond - best) * 2;
  }
  for (int i = 0; i < 40 && beyond < kFar; ++i) {
    const double middle = (reached + beyond) / 2;
    (explains(middle, error) ? reached : beyond) = middle;
  }
  const auto whole = [&](double t) {
    return static_cast<uint64_t>(std::ceil(std::min(as_real(fit_.threshold) + t, kFar) - 1e-9));
  };
  return {whole(best), whole(low), beyond >= kFar ? kNoBound : whole(beyond)};
}

}  // namespace us::calib
