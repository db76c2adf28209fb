// What the world has for a machine, on its way from the backends' threads to the vCPU thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>

#include "hv/core/input_output.h"

namespace us::hv {

// A bounded queue with many producers and one consumer. `notify` is called after each push (from
// the producer's thread) and must be cheap and thread-safe: it kicks the vCPU.
class WorldEvents {
 public:
  static constexpr size_t kMost = 4096;

  explicit WorldEvents(std::function<void()> notify) : notify_(std::move(notify)) {}

  // Waits while the queue is full (disk completions must not be lost). Returns false after close().
  bool push(Input event);
  // Drops the event and counts it when the queue is full (frames may be lost, as on any wire).
  bool offer(Input event);

  std::optional<Input> pop();
  bool empty() const;
  // Waits until an event is there, wake() was called, or the time has come.
  void wait_until(std::chrono::steady_clock::time_point deadline);
  void wake();
  // No more events: producers waiting in push() return false.
  void close();
  uint64_t dropped() const;

 private:
  std::function<void()> notify_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Input> queue_;
  uint64_t dropped_ = 0;
  bool woken_ = false;
  bool closed_ = false;
};

}  // namespace us::hv
