// One run of a VM in this process: world, machine and source put together, torn down in reverse
// order.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <signal.h>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "hv/machine.h"
#include "hv/world/events.h"
#include "hv/world/world.h"
#include "replay-engine/live_source.h"
#include "replay-engine/run_loop.h"
#include "replay-engine/source.h"
#include "tools/vm_config.h"

namespace us::tools {

// What an output sink forwards to once it exists: a machine needs its sink when it is made, and the
// world needs the machine.
class LateSink final : public hv::OutputSink {
 public:
  void set(hv::OutputSink* target) { target_ = target; }
  void frame(uint8_t device, Bytes frame) override {
    if (target_ != nullptr) target_->frame(device, std::move(frame));
  }
  void disk(hv::DiskRequest request) override {
    if (target_ != nullptr) target_->disk(std::move(request));
  }
  void console(uint8_t device, ByteSpan bytes) override {
    if (target_ != nullptr) target_->console(device, bytes);
  }
  bool full() const override { return target_ != nullptr && target_->full(); }

 private:
  hv::OutputSink* target_ = nullptr;
};

struct LiveWorldOptions {
  // Disks with secondary_reads = "disk" say where their data is, for a log that leaves it in the
  // image.
  bool image_offsets = false;
  // Outputs come through a gate, on a thread that must never wait: console text does not.
  bool gated = false;
};

// The live half of a run: opened world and event queue.
class LiveWorld {
 public:
  // Opens disks, networks and the console of `config`. Errors: those of World::open and
  // parse_net_spec.
  static Result<std::unique_ptr<LiveWorld>> open(const VmConfig& config,
                                                 const LiveWorldOptions& options = {});
  ~LiveWorld();

  // Events kick this machine from now on; null: nobody.
  void attach(hv::Machine* machine);
  void on_quit(std::function<void()> quit);

  hv::World& world() { return *world_; }
  hv::WorldEvents& events() { return events_; }

 private:
  LiveWorld();
  std::atomic<hv::Machine*> machine_{nullptr};
  std::mutex mutex_;
  std::function<void()> quit_;
  hv::WorldEvents events_;
  std::unique_ptr<hv::World> world_;
};

// The machine that a VM description means, with `disk_sizes` as the images have them. Draws the
// random seed and the wall clock: call once per new machine and keep the result with the recording.
hv::MachineConfig machine_config(const VmConfig& config, const std::vector<uint64_t>& disk_sizes);

// Ctrl-C and SIGTERM: the first calls the stop function (on a thread of this object's), the second,
// or one while there is no function, ends the process with 128 + signal. Must exist before any
// other thread of the verb: threads inherit the mask that keeps these signals for this object, and
// one that does not have it would take the signal, and with it the process.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  // Empty: none. No call of the old function is under way when it returns.
  void on_stop(std::function<void()> stop);

 private:
  void watch();
  bool take();

  std::mutex mutex_;
  std::function<void()> stop_;
  bool fired_ = false;
  sigset_t signals_;
  sigset_t mask_before_;
  int quit_pipe_[2];
  std::thread thread_;
};

// Runs `machine` in the live world until it ends or the user stops it (Ctrl-C, the console's quit
// key). Outputs still under way are with the host when it returns. `observer` may be null.
replay::EndOfInputs run_live(LiveWorld& live, hv::Machine& machine,
                             const replay::LiveOptions& options, replay::InputObserver* observer,
                             SignalWatch& signals);

// How a verb ends: its exit code and the last line it prints.
struct Outcome {
  ExitCode code = ExitCode::kDone;
  std::string text;
};
Outcome outcome_of(const replay::EndOfInputs& end);

}  // namespace us::tools
