// The output rule: nothing leaves the primary before the secondary has acknowledged all that led to
// it. Outputs wait here, each for the log position of the first record written at or after the
// point that produced it (a secondary that has that record replays past the output's point before
// it can go live). Only outputs wait; the vCPU runs on.
//
// The same gate stands on the secondary, as the shadow of the primary's: it keeps what the primary
// may not have released yet, so that frames and console text on their way when the primary died are
// sent again (disk requests are submitted again by go-live itself, from the devices' own state).
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <variant>

#include "base/types.h"
#include "hv/core/input_output.h"
#include "replay-engine/pair/hold_times.h"

namespace us::replay {

struct GateCounters {
  uint64_t held = 0;  // outputs waiting now
  uint64_t held_bytes = 0;
  uint64_t released = 0;  // outputs let out after waiting
  uint64_t dropped = 0;   // frames and console text that a full shadow forgot
  std::chrono::nanoseconds p50{0}, p99{0}, max{0};  // how long they waited
};

class OutputGate final : public hv::OutputSink {
 public:
  enum class Mode : uint8_t {
    kThrough,  // at once: nobody's acknowledgement is needed
    kHold,     // the primary of a pair: until covered
    kShadow,   // a secondary: until the primary has released it, then forgotten
    kShut,     // never: this side must not be seen any more
  };
  // `urgent` is called, on the vCPU thread, when an output waits that a record should follow soon;
  // `now` reads the clock that hold times are measured with.
  OutputGate(std::function<std::chrono::nanoseconds()> now, std::function<void()> urgent);

  // Where released outputs go; null: nowhere yet. Any thread.
  void connect(hv::OutputSink* world);

  // OutputSink: the vCPU thread, at the point that produces the output.
  void frame(uint8_t device, Bytes frame) override;
  void disk(hv::DiskRequest request) override;
  void console(uint8_t device, ByteSpan bytes) override;

  // vCPU thread: a record was written whose point is not before any output so far; `after` is the
  // log position behind it. True: outputs wait for it, so it should go out soon.
  bool close_batch(LogPosition after);
  // Whether outputs wait for a record: those that should get one soon, or, where the guest is about
  // to idle, any.
  bool wants_record(bool idle) const;

  // Any thread: everything up to here is acknowledged (kHold) or released (kShadow).
  void covered(LogPosition upto);
  // Any thread. To kThrough: all that waits leaves, in order. To kHold or kShadow: what comes from
  // now on waits, for positions of a new log.
  void set_mode(Mode mode);
  Mode mode() const;

  // More waits than a side should hold, or the world is full: the vCPU must not run on. Outputs are
  // let out on the thread that serves the channel, which must never wait for a slow reader.
  bool full() const override;
  // The position up to which everything was released.
  LogPosition released() const;
  GateCounters counters() const;

  static constexpr uint64_t kBytesMax = 64ull << 20;

 private:
  struct FrameOut {
    uint8_t device;
    Bytes bytes;
  };
  struct ConsoleOut {
    uint8_t device;
    Bytes bytes;
  };
  using Output = std::variant<FrameOut, hv::DiskRequest, ConsoleOut>;
  struct Held {
    Output output;
    uint64_t bytes;
    std::chrono::nanoseconds since;
    LogPosition needs;  // meaningful for all but the open batch, which is the queue's tail
  };

  // Under mutex_.
  bool passes(const Output& output) const;
  bool overlaps_held(const hv::DiskRequest& request) const;
  void take(Output output, uint64_t bytes, bool urgent);
  void forward(Output& output);
  void pop_front(bool let_out);

  const std::function<std::chrono::nanoseconds()> now_;
  const std::function<void()> urgent_;
  mutable std::mutex mutex_;  // held while forwarding: outputs leave in the order produced
  hv::OutputSink* world_ = nullptr;
  Mode mode_ = Mode::kThrough;
  std::deque<Held> held_;
  size_t open_ = 0;  // of them, at the tail: no record follows yet
  bool wants_soon_ = false;
  uint64_t held_bytes_ = 0;
  LogPosition covered_;
  uint64_t released_count_ = 0;
  uint64_t dropped_ = 0;
  HoldTimes times_;
};

}  // namespace us::replay
