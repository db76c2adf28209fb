#include "replay-engine/pair/outbound_log.h"

namespace us::replay {

OutboundLog::OutboundLog(const log::FrameOptions& frame, uint64_t bytes_max)
    : bytes_max_(bytes_max), builder_(frame) {}

LogPosition OutboundLog::append(const log::Record& record) {
  std::lock_guard lock(mutex_);
  const LogPosition position = builder_.append(record);
  if (builder_.full()) finish_frame();
  return position;
}

void OutboundLog::send_now() {
  std::lock_guard lock(mutex_);
  if (!builder_.empty()) finish_frame();
}

void OutboundLog::finish_frame() {
  const ByteSpan frame = builder_.finish();
  frames_.emplace_back(frame.begin(), frame.end());
  bytes_waiting_ += frame.size();
  bytes_made_ += frame.size();
  if (send_) send_(frames_.back());
}

LogPosition OutboundLog::position() const {
  std::lock_guard lock(mutex_);
  return builder_.position();
}

bool OutboundLog::attach(uint64_t next_sequence, Send send) {
  std::lock_guard lock(mutex_);
  if (next_sequence < first_sequence_ || next_sequence > first_sequence_ + frames_.size())
    return false;
  send_ = std::move(send);
  for (size_t i = next_sequence - first_sequence_; i < frames_.size(); ++i) send_(frames_[i]);
  return true;
}

void OutboundLog::detach() {
  std::lock_guard lock(mutex_);
  send_ = nullptr;
}

bool OutboundLog::acked(uint64_t next_sequence) {
  std::lock_guard lock(mutex_);
  if (next_sequence > first_sequence_ + frames_.size()) return false;
  while (first_sequence_ < next_sequence) {
    bytes_waiting_ -= frames_.front().size();
    frames_.pop_front();
    ++first_sequence_;
  }
  return true;
}

uint64_t OutboundLog::first_sequence() const {
  std::lock_guard lock(mutex_);
  return first_sequence_;
}

uint64_t OutboundLog::bytes_waiting() const {
  std::lock_guard lock(mutex_);
  return bytes_waiting_;
}

uint64_t OutboundLog::bytes_made() const {
  std::lock_guard lock(mutex_);
  return bytes_made_;
}

bool OutboundLog::unsent() const {
  std::lock_guard lock(mutex_);
  return !builder_.empty();
}

}  // namespace us::replay
