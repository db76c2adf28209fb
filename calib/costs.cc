#include "calib/experiment.h"

namespace us::calib {
namespace {

constexpr uint64_t kSoftSteps = 20'000;

uint64_t chunks(const Bench&) { return 1; }

Status run(Bench& bench, uint64_t, uint64_t, Measurements& measured) {
  measured.costs = bench.host.costs();
  // On the model it is the software processor that steps.
  if (bench.machine) measured.costs.step_ns = measure_soft_step_ns(kSoftSteps);
  return Done{};
}

}  // namespace

const Experiment kCostExperiment{
    "costs", "reading, arming, stepping and breakpoints take a time that hardly varies", chunks,
    run};

}  // namespace us::calib
