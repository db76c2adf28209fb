// The branch counter of a real processor through perf: two pinned guest-only events on the vCPU
// thread. The clock is never reprogrammed, since a sampling event that the kernel throttles stops
// counting; the alarm samples, and sends a signal to the thread. Never yet run on real hardware;
// what runs in tests is this code against a model of perf.
#pragma once

#include <memory>
#include <optional>

#include "pmu/counter.h"
#include "pmu/events.h"
#include "pmu/perf_host.h"

namespace us::pmu {

// The row a real counter may use on `cpu`. PMU-017: a processor without a usable branch counter
// (unknown, or known and refused: the message has the reason).
Result<const EventRow*> usable_event(const CpuId& cpu);

struct PerfCounterOptions {
  pid_t thread = 0;  // the vCPU thread's id; 0: the caller's
  int signal = 0;    // sent to it when the alarm fires; blocked outside KVM_RUN by its owner
  uint64_t period_min = 32;  // branches; the kernel's floor on Haswell, nothing lost elsewhere
  EventScope scope = EventScope::kGuest;
};

class PerfCounter final : public Counter {
 public:
  // `host` outlives the counter. Errors: PMU-012, and PMU-018 where perf refuses an event, with the
  // kernel's reason.
  static Result<std::unique_ptr<PerfCounter>> open(PerfHost& host, const EventRow& row,
                                                   const PerfCounterOptions& options);
  ~PerfCounter() override;
  PerfCounter(const PerfCounter&) = delete;
  PerfCounter& operator=(const PerfCounter&) = delete;

  // By RDPMC where the control page allows it, else by read(2). kLost once the event lost its
  // counter or shared it, for ever.
  Result<Branches, CounterError> read() override;

  Result<Done, CounterError> arm(Branches now, Branches target) override;
  void disarm() override;
  uint64_t period_min() const override { return options_.period_min; }
  CounterHealth health() const override { return health_; }

  // The owner saw the signal: the alarm has fired and is off. A late signal of an alarm already
  // disarmed is ignored.
  void on_interrupt() override;

  // How often read() needed the system call.
  uint64_t slow_reads() const { return slow_reads_; }

 private:
  PerfCounter(PerfHost& host, const PerfCounterOptions& options) : host_(host), options_(options) {}
  Status open_events(const EventRow& row);
  std::optional<uint64_t> read_fast();
  bool start(uint64_t period);

  PerfHost& host_;
  PerfCounterOptions options_;
  int clock_ = -1;
  int alarm_ = -1;
  const perf_event_mmap_page* page_ = nullptr;
  CounterHealth health_;
  uint64_t target_ = 0;
  bool armed_ = false;
  // The kernel still has one overflow to let through: an alarm that was disarmed before it fired.
  bool allowance_ = false;
  uint64_t slow_reads_ = 0;
};

}  // namespace us::pmu
