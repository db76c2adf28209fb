// A real processor's counter as a host to measure: user-mode code of known branches, counted and
// interrupted through perf. Never yet run on a processor with a counter; what runs in tests is this
// code against a model of perf.
#pragma once

#include <memory>

#include "calib/code_runner.h"
#include "pmu/perf_counter.h"

namespace us::calib {

class PerfExperimentHost final : public ExperimentHost {
 public:
  // `perf` and `code` outlive it. Errors: those of PerfCounter::open.
  static Result<std::unique_ptr<PerfExperimentHost>> open(pmu::PerfHost& perf,
                                                          const pmu::EventRow& row,
                                                          CodeRunner& code);
  ~PerfExperimentHost() override;

  std::string_view backend() const override { return "perf"; }
  std::string_view event() const override { return row_.pfm_event; }
  uint64_t event_config() const override { return row_.config; }
  pmu::HostIdentity identity() const override;
  std::span<const Shape> shapes() const override { return code_.shapes(); }

  void reseed(uint64_t) override {}  // chance is the processor's
  Result<Counted> count(Shape shape, uint64_t branches, Disturbance disturbance) override;
  // Counts between reading the clock and the code's first branch, and between the interrupt and the
  // reading in its handler, are part of `came_after`: it is too large by them, never too small.
  Result<AlarmRun> alarm(Shape shape, uint64_t period, uint64_t patience) override;
  void pause(uint64_t branches) override;
  Status disturb(Disturbance disturbance) override;
  std::optional<std::string> why_not(Disturbance disturbance) const override;
  std::optional<TscSample> tsc() override { return read_tsc(); }
  CostFigures costs() override;

  // Counts of our own between two readings of the clock with nothing between them.
  uint64_t own_branches() const { return own_branches_; }

 private:
  PerfExperimentHost(const pmu::EventRow& row, CodeRunner& code) : row_(row), code_(code) {}
  Status measure_own_branches();
  Result<uint64_t> reading();
  pmu::Retired run(Shape shape, uint64_t branches, uint64_t* rounds_done);

  const pmu::EventRow& row_;
  CodeRunner& code_;
  std::unique_ptr<pmu::PerfCounter> counter_;
  uint64_t own_branches_ = 0;
  std::atomic<uint8_t> stop_{0};
  // Written by the handler amid the code, read after it.
  std::atomic<bool> came_{false};
  std::atomic<uint64_t> came_at_{0};
};

}  // namespace us::calib
