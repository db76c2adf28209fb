// The secondary's end of the log: frames come in on the network thread and are kept; records go out
// to the replaying thread, which waits while there are none.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

#include "logchannel/frame.h"
#include "logchannel/log_stream.h"

namespace us::replay {

// Why no more frames will come.
enum class InboundEnd : uint8_t {
  kNone,      // they may
  kPeerLost,  // silence, or the connection broke and did not come back
  kTakeOver,  // the primary has halted and asks this side to go live
  kStopped,   // the operator stopped the VM
  kDisabled,  // protection was turned off: the primary runs on
  kFenced,    // the primary lost the arbiter: somebody else is live
  kReplaced,  // the primary began a new session
  kUnusable,  // what came broke the log's rules
  kStoppedHere,
};
const char* describe(InboundEnd end);

class InboundLog final : public log::LogStream {
 public:
  InboundLog() = default;

  // --- Network thread.
  // One whole frame. False: it is no frame, or not the one that must come next; the log is over
  // (kUnusable) with `reason` filled in.
  bool add(ByteSpan frame, std::string& reason);
  // No more will come; what is here can still be read. The first call decides.
  void end(InboundEnd why);
  uint64_t next_sequence() const;
  LogPosition received() const;
  uint64_t bytes_waiting() const;  // kept and not yet read

  // --- Replaying thread. The call after a record says that it was applied.
  Result<std::optional<log::Record>> next() override;  // waits
  // The same without waiting; nothing and !ended(): nothing is here now.
  Result<std::optional<log::Record>> try_next();
  LogPosition position() const override { return position_; }
  log::StreamEnd end() const override;

  // --- Any thread.
  InboundEnd why_ended() const;
  LogPosition replayed() const;
  // The record that entitles this side to go live was read: from it on the primary lets nothing out
  // that is not acknowledged.
  bool entitled() const;

 private:
  struct Kept {
    Bytes records;
    LogPosition first;
    bool fresh;
  };
  bool take_frame(std::unique_lock<std::mutex>& lock, bool wait);
  Result<std::optional<log::Record>> decode();

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  log::FrameReader frames_;  // network thread
  std::deque<Kept> kept_;    // under mutex_, as all below but the replaying thread's own
  uint64_t bytes_waiting_ = 0;
  uint64_t next_sequence_ = 0;
  LogPosition received_;
  InboundEnd end_ = InboundEnd::kNone;
  LogPosition replayed_;
  bool entitled_ = false;

  Kept current_{};  // replaying thread
  log::RecordDecoder decoder_;
  ByteReader records_{ByteSpan{}};
  LogPosition position_;
  bool complete_ = false;
};

}  // namespace us::replay
