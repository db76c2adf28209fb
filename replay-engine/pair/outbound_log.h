// The primary's end of a log that goes to a secondary: records become frames, frames stay here
// until they are acknowledged, and are sent again from where the other side left off after a
// reconnect.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>

#include "logchannel/frame.h"
#include "logchannel/log_stream.h"

namespace us::replay {

class OutboundLog final : public log::LogSink {
 public:
  // Hands a whole frame to the network; must not block.
  using Send = std::function<void(ByteSpan frame)>;

  OutboundLog(const log::FrameOptions& frame, uint64_t bytes_max);

  // LogSink, the vCPU thread. Never fails: what the network does is not the log's business.
  LogPosition append(const log::Record& record) override;
  Status flush() override {
    send_now();
    return Done{};
  }
  void send_now();  // flush(), which cannot fail here
  Status status() const override { return Done{}; }
  LogPosition position() const override;

  // A peer that has every frame before `next_sequence` is there: the rest is sent again, then
  // frames as they are made. False: that frame is no longer here, or never was.
  bool attach(uint64_t next_sequence, Send send);
  void detach();
  // The peer keeps every frame before `next_sequence`: forgotten here. False: it claims frames that
  // were never sent.
  bool acked(uint64_t next_sequence);

  uint64_t first_sequence() const;
  uint64_t bytes_waiting() const;  // made and not acknowledged
  bool has_room() const { return bytes_waiting() < bytes_max_; }
  uint64_t bytes_made() const;  // all frames ever
  bool unsent() const;          // records wait for flush()

 private:
  void finish_frame();

  const uint64_t bytes_max_;
  mutable std::mutex mutex_;
  log::FrameBuilder builder_;
  std::deque<Bytes> frames_;  // unacknowledged, oldest first
  uint64_t first_sequence_ = 0;
  uint64_t bytes_waiting_ = 0;
  uint64_t bytes_made_ = 0;
  Send send_;
};

}  // namespace us::replay
