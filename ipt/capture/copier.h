// A thread that empties an event's buffer while the vCPU runs, so that a long epoch does not fill
// it. Memory is bounded: when the queue is full too, the buffer is left to fill, and the kernel
// reports the loss as it reports every other (TRUNCATED). Only copies; whoever wants the trace
// takes it on a thread of his own.
#pragma once

#include <atomic>
#include <thread>

#include "base/bytes.h"
#include "ipt/capture/aux_event.h"

namespace us::ipt {

class Copier {
 public:
  // `event` outlives it.
  Copier(AuxEvent& event, size_t queue_bytes);
  ~Copier();
  Copier(const Copier&) = delete;
  Copier& operator=(const Copier&) = delete;

  // How much waits. From any thread.
  size_t waiting() const { return waiting_.load(std::memory_order_relaxed); }
  // Swaps what waits against `into`, which must be empty, and adds its losses to `loss`. The caller
  // holds the event's mutex.
  void take(Bytes& into, uint32_t& loss);

 private:
  void run();

  AuxEvent& event_;
  size_t queue_bytes_;
  Bytes queue_;        // under the event's mutex
  uint32_t loss_ = 0;  // likewise
  std::atomic<size_t> waiting_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace us::ipt
