#include <algorithm>

#include "calib/experiment.h"
#include "calib/margin.h"

namespace us::calib {
namespace {

constexpr uint64_t kChunksEach = 4;  // a margin
// Parts of the margin that is safe, below and above it.
constexpr double kParts[] = {0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3};
constexpr uint64_t kMarginMax = 60'000;  // branches; walking more than that takes long

uint64_t chunks(const Bench& bench) { return bench.machine ? std::size(kParts) * kChunksEach : 0; }

uint64_t safe_margin(const Bench& bench, const Histogram& skid) {
  const Tail tail(skid);
  return std::min(tail.reach(bench.overshoot_probability, bench.confidence).high, kMarginMax);
}

// The same landings and the same skids for each margin: chance depends on the turn alone.
Status run(Bench& bench, uint64_t chunk, uint64_t, Measurements& measured) {
  const Histogram skid = measured.skid_of_all();
  if (skid.empty()) return Done{};
  const uint64_t safe = std::max<uint64_t>(safe_margin(bench, skid), 1);
  const uint64_t part = chunk / kChunksEach, turn = chunk % kChunksEach;
  const auto margin =
      std::max<uint64_t>(static_cast<uint64_t>(static_cast<double>(safe) * kParts[part]), 1);
  // The modelled counter's mistakes are another matter: this is about its skid.
  pmu::ModelSettings model{.skid = bench.machine->skid};
  const LandingBench landing{.model = model, .distance_min = 3 * safe + 500};
  measured.landings[margin].add(
      measure_landings(landing, margin, bench.amounts.landings / kChunksEach, turn + 1));
  return Done{};
}

}  // namespace

const Experiment kLandingCost{
    "landing cost",
    "a landing costs an alarm, and stops in proportion to the branches between alarm and target",
    chunks, run};

}  // namespace us::calib
