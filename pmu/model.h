// A modelled branch counter for the software processor: exact by default, late by a drawn skid, and
// able to misbehave in every way named in quirks.h that software can show.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "pmu/counter.h"
#include "pmu/random.h"
#include "pmu/skid.h"

namespace us::pmu {

// How the model deviates from an ideal counter. Zero is ideal, for every field.
struct Misbehaviour {
  uint64_t overcount_one_in = 0;       // a host interrupt in so many adds...
  uint64_t overcount_branches = 1;     // ...so many (host-interrupt-overcount, pmi-overcount)
  uint64_t smi_interval_branches = 0;  // mean distance between SMIs...
  uint64_t smi_branches_max = 1000;    // ...each leaking 1 to so many (smi-leak)
  uint64_t hidden_period_min = 0;      // shorter periods are raised to this (minimum-period-*)
  uint64_t lose_one_in = 0;            // an overflow in so many is lost (lost-overflow)
  uint64_t throttle_arms = 0;          // more alarms than this within...
  uint64_t throttle_window_branches =
      100'000;              // ...so many branches: silent to its end (throttling)
  bool taken_only = false;  // counts taken branches only (taken-only-event)

  bool operator==(const Misbehaviour&) const = default;
};

struct ModelOptions {
  SkidModel skid;
  uint64_t seed = 1;
  uint64_t period_min = 1;  // what arm() insists on
  Misbehaviour misbehaviour;
};

// What the processor has really retired.
struct Retired {
  uint64_t conditional = 0;
  uint64_t taken = 0;  // of these
};

class PmuModel final : public Counter {
 public:
  // `retired` is asked at every call; its counts never fall.
  PmuModel(const ModelOptions& options, std::function<Retired()> retired);

  Result<Branches, CounterError> read() override;

  Result<Done, CounterError> arm(Branches now, Branches target) override;
  void disarm() override;
  uint64_t period_min() const override { return options_.period_min; }
  CounterHealth health() const override { return health_; }

  bool modelled() const override { return true; }
  std::optional<uint64_t> interrupt_at() const override { return interrupt_at_; }
  // Counts as a host interrupt.
  void on_interrupt() override;
  // Any other host interrupt (a timer, a signal).
  void on_host_interrupt();

 private:
  struct Smi {
    uint64_t at;  // conditional branches really retired
    uint64_t leaks;
  };
  uint64_t counted(const Retired& retired);
  const Smi& smi(size_t index);
  // When `distance` more counts will have been made, in real branches from `retired` on.
  uint64_t real_count_after(const Retired& retired, uint64_t distance);
  bool throttled(const Retired& retired);

  ModelOptions options_;
  std::function<Retired()> retired_;
  Random skid_random_;
  Random fault_random_;
  Random smi_random_;
  CounterHealth health_;
  uint64_t leaked_ = 0;    // counts that are not the guest's
  std::vector<Smi> smis_;  // drawn so far, in order
  size_t smis_past_ = 0;   // of these, counted into leaked_
  uint64_t target_ = 0;    // of the alarm armed, as counted
  bool armed_ = false;
  std::optional<uint64_t> interrupt_at_;
  uint64_t window_begin_ = 0;
  uint64_t window_arms_ = 0;
};

}  // namespace us::pmu
