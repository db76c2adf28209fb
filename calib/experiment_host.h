// What experiments see of the host they measure: code with a known number of conditional branches,
// a counter that counts them, and disturbances. The model and perf stand behind it; an experiment
// cannot tell which.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "calib/tsc.h"
#include "pmu/model.h"
#include "pmu/profile.h"

namespace us::calib {

// What runs while something is measured. Skid and exactness may depend on it.
enum class Shape : uint8_t {
  kTaken,        // a tight loop: every conditional branch is taken
  kNotTaken,     // 64 branches that are not, and one that is
  kMixed,        // half and half
  kCalls,        // calls and returns between conditional branches
  kStrings,      // REP string instructions between them
  kCacheMisses,  // loads that miss all caches between them
  kSystemCalls,  // a system call each round
  kPageFaults,   // a page fault each round
};
constexpr size_t kShapeCount = 8;
std::string_view name_of(Shape shape);
std::optional<Shape> shape_by_name(std::string_view name);

enum class Disturbance : uint8_t {
  kNone,
  kInterrupts,   // host interrupts, ten thousand a second or more: each is an exit and an entry
  kBusySibling,  // the core's other hardware thread is at work
};
std::string_view name_of(Disturbance disturbance);

// One stretch of code.
struct Counted {
  pmu::Retired retired;     // by the code's construction
  uint64_t counted = 0;     // by the clock
  uint64_t interrupts = 0;  // of the disturbance's
};

// One alarm, and code run until it came.
struct AlarmRun {
  // Counts from arming to the interrupt; nothing: it had not come `patience` after its time.
  std::optional<uint64_t> came_after;
};

// Nanoseconds; nothing: it cannot be measured here.
struct CostFigures {
  std::optional<double> read_ns;   // one reading of the clock
  std::optional<double> arm_ns;    // setting an alarm, or setting it anew
  std::optional<double> alarm_ns;  // an interrupt's way to who waits for it
  std::optional<double> step_ns;   // one single step
  std::optional<double> break_ns;  // running to a breakpoint
  bool operator==(const CostFigures&) const = default;
};

class ExperimentHost {
 public:
  virtual ~ExperimentHost() = default;

  virtual std::string_view backend() const = 0;  // "soft", "perf", "kvm", "kvm-steps"
  virtual std::string_view event() const = 0;    // as in a profile
  virtual uint64_t event_config() const = 0;
  virtual pmu::HostIdentity identity() const = 0;
  // Those that make sense here, at least kTaken, kNotTaken and kMixed.
  virtual std::span<const Shape> shapes() const = 0;

  // Starts afresh: chance, where there is any to be had, depends on `seed` alone from here on.
  virtual void reseed(uint64_t seed) = 0;
  // Runs about `branches` conditional branches.
  virtual Result<Counted> count(Shape shape, uint64_t branches, Disturbance disturbance) = 0;
  // `period` may be as little as 1: what the part makes of it is what is measured.
  virtual Result<AlarmRun> alarm(Shape shape, uint64_t period, uint64_t patience) = 0;
  // About so many branches without an alarm.
  virtual void pause(uint64_t branches) = 0;
  // From now on alarm() runs amid this, kNone: amid nothing. Precondition: !why_not(disturbance).
  virtual Status disturb(Disturbance) { return Done{}; }
  // Why alarms cannot be disturbed so; nothing: they can.
  virtual std::optional<std::string> why_not(Disturbance disturbance) const {
    if (disturbance == Disturbance::kNone) return std::nullopt;
    return std::string("this backend cannot do it");
  }
  // The host's time stamp counter now; nothing: it is not what guests would see.
  virtual std::optional<TscSample> tsc() { return std::nullopt; }
  virtual CostFigures costs() = 0;
};

}  // namespace us::calib
