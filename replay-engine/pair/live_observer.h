// What the vCPU thread does for the pair, between two inputs: brings a secondary in, writes the
// log, closes output batches, and holds the guest back where the rules say so.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "hv/state_transfer.h"
#include "replay-engine/pair/live_side.h"
#include "replay-engine/recorder.h"

namespace us::replay {

struct NamedSection {
  std::string name;
  Bytes data;
};

// Where the guest is, for who asks from another thread.
struct GuestProgress {
  std::atomic<uint64_t> branches{0}, instructions{0}, guest_ticks{0};
  void set(hv::Machine& machine);
};

class LiveObserver final : public InputObserver {
 public:
  // `sections` describe the VM to a secondary, before its state. `witness`: how the guest is traced
  // while a secondary follows. All references outlive it.
  LiveObserver(LiveSide& side, OutputGate& gate, std::vector<NamedSection> sections,
               std::function<std::chrono::nanoseconds()> now, GuestProgress& progress,
               WitnessOptions witness = {});

  bool before_apply(hv::Machine& machine, const StampedInput& input, EndOfInputs& why) override;
  bool at_epoch(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) override;

  // The run is over: the log gets its End record, or the secondary its word to take over.
  void finish(hv::Machine& machine, const EndOfInputs& end);
  // From any thread: do not wait for room any more.
  void request_stop() { stop_ = true; }

 private:
  bool service(hv::Machine& machine, EndOfInputs& why);
  void follow(hv::Machine& machine, const std::shared_ptr<OutboundLog>& log);
  void transfer(hv::Machine& machine);
  void send_section(std::string_view name, ByteSpan bytes);
  void wrote();
  bool unlogged();
  bool wait_for_room();
  void give_up_time(hv::Machine& machine, double slowdown);

  LiveSide& side_;
  OutputGate& gate_;
  const std::vector<NamedSection> sections_;
  const std::function<std::chrono::nanoseconds()> now_;
  GuestProgress& progress_;
  std::shared_ptr<OutboundLog> log_;  // of the session that is followed
  std::optional<hv::StateTransfer> transfer_;
  const WitnessOptions witness_options_;
  // From the transfer's end on: the secondary's trace begins there too.
  std::unique_ptr<Witness> witness_;
  std::optional<Recorder> recorder_;
  std::chrono::nanoseconds last_flush_{0};
  std::chrono::nanoseconds ran_since_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace us::replay
