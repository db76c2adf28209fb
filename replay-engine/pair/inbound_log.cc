#include "replay-engine/pair/inbound_log.h"

namespace us::replay {

const char* describe(InboundEnd end) {
  switch (end) {
    case InboundEnd::kNone: return "more may come";
    case InboundEnd::kPeerLost: return "the primary was lost";
    case InboundEnd::kTakeOver: return "the primary asked this side to take over";
    case InboundEnd::kStopped: return "the VM was stopped";
    case InboundEnd::kDisabled: return "protection was turned off";
    case InboundEnd::kFenced: return "the primary lost the arbiter";
    case InboundEnd::kReplaced: return "the primary began a new session";
    case InboundEnd::kUnusable: return "the log broke its own rules";
    case InboundEnd::kStoppedHere: return "stopped on request";
  }
  return "?";
}

bool InboundLog::add(ByteSpan frame, std::string& reason) {
  while (!frame.empty()) {
    const size_t taken = frames_.feed(frame);
    frame = frame.subspan(taken);
    auto next = frames_.next();
    if (!next) {
      reason = describe(next.error());
    } else if (!next->has_value()) {
      if (taken != 0 && !frame.empty()) continue;
      reason = "half a frame";
    } else if (!frame.empty()) {
      reason = "bytes after the frame";
    } else {
      std::lock_guard lock(mutex_);
      const log::Frame& whole = **next;
      kept_.push_back({Bytes(whole.records.begin(), whole.records.end()),
                       whole.header.first_position, (whole.header.flags & log::kFrameFresh) != 0});
      bytes_waiting_ += whole.records.size();
      next_sequence_ = frames_.next_sequence();
      received_ = frames_.position();
      arrived_.notify_one();
      return true;
    }
    end(InboundEnd::kUnusable);
    return false;
  }
  reason = "an empty frame";
  end(InboundEnd::kUnusable);
  return false;
}

void InboundLog::end(InboundEnd why) {
  std::lock_guard lock(mutex_);
  if (end_ == InboundEnd::kNone) end_ = why;
  arrived_.notify_all();
}

uint64_t InboundLog::next_sequence() const {
  std::lock_guard lock(mutex_);
  return next_sequence_;
}

LogPosition InboundLog::received() const {
  std::lock_guard lock(mutex_);
  return received_;
}

uint64_t InboundLog::bytes_waiting() const {
  std::lock_guard lock(mutex_);
  return bytes_waiting_;
}

InboundEnd InboundLog::why_ended() const {
  std::lock_guard lock(mutex_);
  return end_;
}

LogPosition InboundLog::replayed() const {
  std::lock_guard lock(mutex_);
  return replayed_;
}

bool InboundLog::entitled() const {
  std::lock_guard lock(mutex_);
  return entitled_;
}

bool InboundLog::take_frame(std::unique_lock<std::mutex>& lock, bool wait) {
  if (wait) arrived_.wait(lock, [this] { return !kept_.empty() || end_ != InboundEnd::kNone; });
  if (kept_.empty()) return false;
  current_ = std::move(kept_.front());
  kept_.pop_front();
  bytes_waiting_ -= current_.records.size();
  return true;
}

Result<std::optional<log::Record>> InboundLog::next() {
  std::unique_lock lock(mutex_);
  replayed_ = position_;
  if (records_.at_end() && !take_frame(lock, true)) return std::optional<log::Record>{};
  lock.unlock();
  return decode();
}

Result<std::optional<log::Record>> InboundLog::try_next() {
  std::unique_lock lock(mutex_);
  replayed_ = position_;
  if (records_.at_end() && !take_frame(lock, false)) return std::optional<log::Record>{};
  lock.unlock();
  return decode();
}

Result<std::optional<log::Record>> InboundLog::decode() {
  if (records_.at_end()) {
    if (current_.fresh) decoder_.start_afresh();
    records_ = ByteReader(current_.records);
  }
  auto record = decoder_.decode(records_);
  if (!record) {
    end(InboundEnd::kUnusable);
    return UserError{.id = "FT-020",
                     .exit_code = ExitCode::kLogUnreadable,
                     .what = "the primary's log cannot be read",
                     .seen = describe(record.error()),
                     .needed = "records as this protocol version defines them",
                     .mend = "run the same build on both hosts"};
  }
  position_ = current_.first + records_.position();
  const log::Body& body = (*record)->body;
  if (std::holds_alternative<log::End>(body)) complete_ = true;
  if (const auto* marker = std::get_if<log::Marker>(&body);
      marker != nullptr && marker->kind == log::MarkerKind::kGoLive) {
    std::lock_guard lock(mutex_);
    entitled_ = true;
  }
  return std::move(*record);
}

log::StreamEnd InboundLog::end() const {
  std::lock_guard lock(mutex_);
  return {.ended = end_ != InboundEnd::kNone && kept_.empty() && records_.at_end(),
          .complete = complete_,
          .reason = describe(end_),
          .position = position_};
}

}  // namespace us::replay
