// A guest under KVM as a host to measure: the native shapes' code runs in it, and what is counted
// and interrupted is the guest alone, by the very backend that records. Never yet run on a
// processor with a counter; what runs in tests is this code against a model of KVM and perf.
#pragma once

#include <memory>

#include "calib/experiment_host.h"
#include "hv/kvm/host_check.h"
#include "hv/kvm/test_guest.h"
#include "pmu/perf_counter.h"

namespace us::calib {

struct KvmExperimentOptions {
  bool by_steps = false;             // no counter: every instruction is stepped and looked at
  std::optional<unsigned> cpu = {};  // the vCPU's thread is kept there; nothing: wherever it is put
};

// The guest's counter, with an alarm that may be watched: what it is set for does not end a run,
// its interrupt does. So nothing that only happens to stop the guest can cut an alarm's way short.
class WatchedCounter final : public pmu::Counter {
 public:
  WatchedCounter(std::unique_ptr<pmu::PerfCounter> counter, hv::kvm::QuietBus& bus)
      : counter_(std::move(counter)), bus_(bus) {}

  // The next alarm is set for so many branches after it is armed, whatever its target.
  void watch(uint64_t period);
  // Branches from arming to the interrupt; nothing: it has not come. The alarm is off afterwards.
  std::optional<uint64_t> end_watch();

  Result<Branches, pmu::CounterError> read() override { return counter_->read(); }
  Result<Done, pmu::CounterError> arm(Branches now, Branches target) override;
  void disarm() override { counter_->disarm(); }
  uint64_t period_min() const override { return counter_->period_min(); }
  pmu::CounterHealth health() const override { return counter_->health(); }
  void on_interrupt() override;

 private:
  std::unique_ptr<pmu::PerfCounter> counter_;
  hv::kvm::QuietBus& bus_;
  uint64_t period_ = 0;  // 0: nothing is watched
  std::optional<Branches> armed_at_;
  std::optional<uint64_t> came_after_;
};

class KvmExperimentHost final : public ExperimentHost {
 public:
  // What `host` refers to outlives it. Errors: KVM-001 and others of KvmVcpu::create; PMU-017 and
  // PMU-018 where a counter is wanted and there is none; KVM-011 no such processor; KVM-010 a guest
  // that does not come to its end.
  static Result<std::unique_ptr<KvmExperimentHost>> open(const hv::kvm::Host& host,
                                                         const KvmExperimentOptions& options);

  std::string_view backend() const override { return options_.by_steps ? "kvm-steps" : "kvm"; }
  std::string_view event() const override;
  uint64_t event_config() const override { return row_ == nullptr ? 0 : row_->config; }
  pmu::HostIdentity identity() const override;
  std::span<const Shape> shapes() const override;

  void reseed(uint64_t) override {}  // chance is the processor's
  // Interrupts are kicks by another thread and alarms of the counter's own: exits all of them.
  Result<Counted> count(Shape shape, uint64_t branches, Disturbance disturbance) override;
  Result<AlarmRun> alarm(Shape shape, uint64_t period, uint64_t patience) override;
  void pause(uint64_t branches) override;
  Status disturb(Disturbance disturbance) override;
  std::optional<std::string> why_not(Disturbance disturbance) const override;
  std::optional<TscSample> tsc() override { return read_tsc(); }
  CostFigures costs() override;

 private:
  KvmExperimentHost(const hv::kvm::Host& host, const KvmExperimentOptions& options)
      : host_(host), options_(options) {}
  Status start();
  Status make_guest();
  void call(Shape shape, uint64_t rounds);
  // Until something but a kick ends it.
  hv::StopReason run_on(const hv::RunRequest& request);
  bool returned(hv::StopReason reason, uint64_t rounds) const;
  UserError failed(hv::StopReason reason) const;
  Result<AlarmRun> alarm_by_steps(Shape shape, uint64_t period);
  void storm(bool on);
  void measure_counter(CostFigures& out);
  std::optional<double> step_ns();
  std::optional<double> break_ns();

  hv::kvm::Host host_;
  KvmExperimentOptions options_;
  const pmu::EventRow* row_ = nullptr;  // null by steps
  hv::kvm::TestGuest guest_;
  WatchedCounter* counter_ = nullptr;  // the vCPU's; null by steps
  bool disturbed_ = false;             // alarms are to come amid exits
  std::optional<hv::kvm::Storm> storm_;
};

}  // namespace us::calib
