// The two uses of a branch counter: a clock that is exact and readable at every stop, and an alarm
// that interrupts at or after a count, late by its skid. Perf counters and the model implement
// both; landing knows only these.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/types.h"

namespace us::pmu {

enum class CounterError : uint8_t {
  kUnavailable,  // the event could not be opened or programmed
  kLost,         // the event lost its counter (multiplexed away): every count since is void
  kTooClose,     // an alarm nearer than period_min(): step instead
  kPast,         // an alarm at or before now
};
const char* describe(CounterError error);

// What counters did so far; divergence reports carry it.
struct CounterHealth {
  uint64_t alarms_armed = 0;
  uint64_t alarms_fired = 0;
  uint64_t alarms_missed = 0;  // disarmed past their target without having fired
  uint64_t throttled = 0;      // alarms silenced because they came too often
  uint64_t skid_max = 0;       // largest lateness seen, in branches
  bool lost = false;           // the clock lost its counter at some time
};
std::string to_text(const CounterHealth& health);

class Clock {
 public:
  virtual ~Clock() = default;
  // Guest conditional branches retired since the counter was made. Only while the guest is stopped.
  virtual Result<Branches, CounterError> read() = 0;
};

class Alarm {
 public:
  virtual ~Alarm() = default;
  // The guest is interrupted once, when it has retired `target` branches or, by the skid, more.
  // Takes the place of an alarm still armed. `now` is the clock's reading.
  virtual Result<Done, CounterError> arm(Branches now, Branches target) = 0;
  virtual void disarm() = 0;
  // The smallest target - now that arm() takes, in branches.
  virtual uint64_t period_min() const = 0;
  virtual CounterHealth health() const = 0;

  // Counters that interrupt by themselves leave the next two alone. A modelled one says where its
  // interrupt arrives, in conditional branches really retired (nothing: no alarm is armed, or its
  // overflow was lost); who runs the processor stops it there and says so.
  virtual bool modelled() const { return false; }
  virtual std::optional<uint64_t> interrupt_at() const { return std::nullopt; }
  virtual void on_interrupt() {}
};

// Both, of one event.
class Counter : public Clock, public Alarm {};

}  // namespace us::pmu
