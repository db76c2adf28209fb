// The live world as a source of inputs: lets the guest run, drops clock anchors, and hands over
// what the backends bring, stamped with the point where the guest happens to be.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>

#include "hv/world/events.h"
#include "replay-engine/source.h"

namespace us::replay {

struct LiveOptions {
  // An anchor at least this often while the guest runs, so that its clock follows the host's.
  std::chrono::nanoseconds anchor_interval = std::chrono::milliseconds(4);
  // How far ahead of its anchor the guest's clock may run.
  std::chrono::nanoseconds clock_lead_max = std::chrono::milliseconds(4);
  std::optional<std::chrono::nanoseconds> time_limit;  // host time
  // Guest time between two epoch ends, and how many epochs between two that cover memory too; zero:
  // none.
  std::chrono::nanoseconds epoch_length = std::chrono::milliseconds(10);
  uint64_t epochs_per_memory_check = 100;
  // Asked, on the vCPU thread, before the guest runs (false) and before it idles (true): whether
  // somebody waits for an input's record, so that an anchor should be dropped now. Empty: nobody.
  std::function<bool(bool idle)> record_wanted = {};
};

class LiveSource final : public InputSource {
 public:
  // `events` must kick the machine when something arrives. The clock goes on from the machine's
  // own: a machine that just went live, or was restored, sees no jump but the time it was away.
  LiveSource(hv::Machine& machine, hv::WorldEvents& events, const LiveOptions& options);
  ~LiveSource() override;

  Next next(hv::Machine& machine) override;

  // From any thread or signal handler: end the run at the next stop.
  void request_stop();

 private:
  using Clock = std::chrono::steady_clock;

  // The guest's clock as the host's says it should read now.
  GuestTsc host_tsc() const;
  Clock::time_point when(GuestTsc tsc) const;
  bool anchor_due(hv::Machine& machine);
  bool record_wanted(bool idle) const {
    return options_.record_wanted && options_.record_wanted(idle);
  }
  StampedInput make_anchor(hv::Machine& machine);
  void count_epochs(GuestTsc now);
  std::optional<EndOfInputs> ended(hv::Machine& machine, hv::MachineStop stop) const;
  uint64_t branches_until_look(hv::Machine& machine);
  void wait_for_something(hv::Machine& machine);
  void watch();

  hv::WorldEvents& events_;
  LiveOptions options_;
  Clock::time_point start_;  // host time at which the guest's clock read zero
  Clock::time_point opened_;
  uint64_t last_anchor_tsc_ = 0;
  uint64_t last_anchor_branches_ = 0;
  bool anchored_ = false;
  double branches_per_tick_ = 0.05;   // of the last stretch the guest ran, smoothed
  std::optional<hv::Input> pending_;  // follows the anchor just given out
  uint64_t epoch_ = 0;
  uint64_t last_epoch_slot_ = 0;
  bool check_due_ = false;
  std::atomic<bool> stop_{false};

  // Kicks the guest now and then, for code that runs without a single conditional branch.
  hv::Machine& machine_;
  std::atomic<bool> quit_{false};
  std::atomic<bool> idle_{false};
  std::thread watchdog_;
};

}  // namespace us::replay
