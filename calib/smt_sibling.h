// The other hardware thread of a core, and something to keep it busy: who shares a core's buffers
// may make the other's interrupts later.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <sched.h>
#include <string>
#include <string_view>
#include <thread>

#include "base/result.h"

namespace us::calib {

// Another processor of a list as the kernel prints it ("0,64", "2-3") that is in `allowed`, or why
// there is none.
Result<int, std::string> other_of(std::string_view list, int cpu, const cpu_set_t& allowed);
// The same of processor `cpu` here, by thread_siblings_list.
Result<int, std::string> sibling_of(int cpu, const cpu_set_t& allowed);

// A thread on `cpu` that branches, loads and stores without a pause until it is destroyed.
class BusyThread {
 public:
  // Nothing: the thread cannot be put there.
  static std::unique_ptr<BusyThread> start(int cpu);
  ~BusyThread();

  // Rounds so far.
  uint64_t rounds() const { return rounds_; }
  int cpu() const { return cpu_; }

 private:
  explicit BusyThread(int cpu) : cpu_(cpu) {}
  void run();

  const int cpu_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> rounds_{0};
  std::atomic<int> placed_{0};  // 1: it is there, -1: it cannot be
  std::thread thread_;
};

}  // namespace us::calib
