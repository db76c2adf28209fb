// Code with a known number of conditional branches, run on this thread, and the interrupts that
// stop it: what PerfExperimentHost needs besides a counter. A model stands in for it in tests.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/result.h"
#include "calib/experiment_host.h"

namespace us::calib {

class CodeRunner {
 public:
  virtual ~CodeRunner() = default;

  virtual std::span<const Shape> shapes() const = 0;
  // What one whole round retires, and what a run adds that is stopped before its last.
  virtual pmu::Retired round(Shape shape) const = 0;
  virtual pmu::Retired stop() const = 0;
  // Runs `rounds` rounds, fewer once `stop` is not zero; returns how many it did.
  virtual uint64_t run(Shape shape, uint64_t rounds, const std::atomic<uint8_t>& stop) = 0;

  // The signal that the alarm sends, and what is called, on this thread and amid the code, when it
  // comes. It must be safe in a signal handler.
  virtual int alarm_signal() const = 0;
  virtual void on_alarm(std::function<void()> handler) = 0;
  // Host interrupts as often as can be had, from now on or no more; how many came.
  virtual Status interrupts(bool on) = 0;
  virtual uint64_t interrupts_seen() const = 0;
  // Work on the core's other hardware thread, from now on or no more; why there can be none.
  virtual Status busy_sibling(bool) { return Done{}; }
  virtual std::optional<std::string> no_sibling() const {
    return std::string("no such thing here");
  }

  // What a single step and a breakpoint cost here. Nothing where they cannot be tried.
  virtual std::optional<double> step_ns() = 0;
  virtual std::optional<double> break_ns() = 0;
};

// This processor's own code, its signals and timers. One at a time in a process: signal handlers
// are the process's. The thread stays on the processor it is on.
Result<std::unique_ptr<CodeRunner>> native_code();

// The native code of a shape and what its rounds retire: a function of (rounds, pointer to a byte
// that stops it, memory) that needs nothing else, so that other processors can be given it, too.
struct NativeShape {
  const uint8_t* code;
  size_t bytes;
  pmu::Retired round;
  bool calls_kernel;
};
NativeShape native_shape(Shape shape);

}  // namespace us::calib
