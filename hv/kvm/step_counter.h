// A branch counter for hosts without a PMU: the vCPU executes one instruction at a time, looks at
// each beforehand, and says here when one was a conditional branch. Exact, and some ten thousand
// times slower than the processor.
#pragma once

#include "pmu/counter.h"

namespace us::hv::kvm {

class StepCounter final : public pmu::Counter {
 public:
  void retire(uint64_t branches) { count_ += branches; }

  Result<Branches, pmu::CounterError> read() override { return Branches(count_); }
  // Who steps sees every count by himself: there is nothing to be interrupted by.
  Result<Done, pmu::CounterError> arm(Branches, Branches) override { return Done{}; }
  void disarm() override {}
  uint64_t period_min() const override { return 1; }
  pmu::CounterHealth health() const override { return {}; }

 private:
  uint64_t count_ = 0;
};

}  // namespace us::hv::kvm
