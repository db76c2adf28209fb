#include "replay-engine/pair/output_gate.h"

#include <algorithm>

#include "base/overloaded.h"

namespace us::replay {

OutputGate::OutputGate(std::function<std::chrono::nanoseconds()> now, std::function<void()> urgent)
    : now_(std::move(now)), urgent_(std::move(urgent)) {}

void OutputGate::connect(hv::OutputSink* world) {
  std::lock_guard lock(mutex_);
  world_ = world;
}

void OutputGate::frame(uint8_t device, Bytes frame) {
  const uint64_t bytes = frame.size();
  take(FrameOut{device, std::move(frame)}, bytes, true);
}

void OutputGate::disk(hv::DiskRequest request) {
  const uint64_t bytes = request.data.size();
  take(std::move(request), bytes, true);
}

// Text can wait for the next record that comes anyway: a record for every character would be most
// of the log.
void OutputGate::console(uint8_t device, ByteSpan bytes) {
  take(ConsoleOut{device, {bytes.begin(), bytes.end()}}, bytes.size(), false);
}

void OutputGate::take(Output output, uint64_t bytes, bool urgent) {
  bool ask = false;
  {
    std::lock_guard lock(mutex_);
    const bool disk = std::holds_alternative<hv::DiskRequest>(output);
    if (mode_ == Mode::kShut || (mode_ == Mode::kShadow && disk)) return;
    if (passes(output)) return forward(output);
    held_.push_back({std::move(output), bytes, now_(), {}});
    held_bytes_ += bytes;
    ++open_;
    ask = urgent && mode_ == Mode::kHold && !wants_soon_;
    wants_soon_ = wants_soon_ || ask;
    // The world may lose frames, and a shadow is a second copy: bounded, the oldest go.
    while (mode_ == Mode::kShadow && held_bytes_ > kBytesMax) {
      open_ = std::min(open_, held_.size() - 1);
      pop_front(false);
      ++dropped_;
    }
  }
  if (ask && urgent_) urgent_();
}

bool OutputGate::passes(const Output& output) const {
  if (mode_ == Mode::kThrough) return true;
  // Reads show nothing to the world; but one behind a write that waits must see what it wrote.
  const auto* request = std::get_if<hv::DiskRequest>(&output);
  return mode_ == Mode::kHold && request != nullptr && request->op == hv::DiskOp::kRead &&
         !overlaps_held(*request);
}

bool OutputGate::overlaps_held(const hv::DiskRequest& request) const {
  return std::any_of(held_.begin(), held_.end(), [&](const Held& h) {
    const auto* other = std::get_if<hv::DiskRequest>(&h.output);
    return other != nullptr && other->device == request.device &&
           request.offset < other->offset + other->length &&
           other->offset < request.offset + request.length;
  });
}

void OutputGate::forward(Output& output) {
  if (world_ == nullptr) return;
  std::visit(Overloaded{
                 [this](FrameOut& out) { world_->frame(out.device, std::move(out.bytes)); },
                 [this](hv::DiskRequest& out) { world_->disk(std::move(out)); },
                 [this](ConsoleOut& out) { world_->console(out.device, out.bytes); },
             },
             output);
}

void OutputGate::pop_front(bool let_out) {
  Held& front = held_.front();
  if (let_out) {
    times_.add(now_() - front.since);
    ++released_count_;
    forward(front.output);
  }
  held_bytes_ -= front.bytes;
  held_.pop_front();
}

bool OutputGate::close_batch(LogPosition after) {
  std::lock_guard lock(mutex_);
  const bool any = open_ != 0;
  for (size_t i = held_.size() - open_; i < held_.size(); ++i) held_[i].needs = after;
  open_ = 0;
  wants_soon_ = false;
  return any;
}

bool OutputGate::wants_record(bool idle) const {
  std::lock_guard lock(mutex_);
  return wants_soon_ || (idle && mode_ == Mode::kHold && open_ != 0);
}

void OutputGate::covered(LogPosition upto) {
  std::lock_guard lock(mutex_);
  covered_ = std::max(covered_, upto);
  while (held_.size() > open_ && held_.front().needs <= covered_) pop_front(mode_ == Mode::kHold);
}

void OutputGate::set_mode(Mode mode) {
  std::lock_guard lock(mutex_);
  while (mode == Mode::kThrough && !held_.empty()) pop_front(true);
  if (mode == Mode::kShut || mode == Mode::kShadow) {
    held_.clear();
    held_bytes_ = 0;
  }
  // Leaving kThrough or starting anew: no position of the old log means anything in the new one.
  if (mode != mode_) covered_ = {};
  if (held_.empty()) open_ = 0;
  wants_soon_ = false;
  mode_ = mode;
}

OutputGate::Mode OutputGate::mode() const {
  std::lock_guard lock(mutex_);
  return mode_;
}

bool OutputGate::full() const {
  std::lock_guard lock(mutex_);
  return held_bytes_ > kBytesMax || (world_ != nullptr && world_->full());
}

LogPosition OutputGate::released() const {
  std::lock_guard lock(mutex_);
  return covered_;
}

GateCounters OutputGate::counters() const {
  std::lock_guard lock(mutex_);
  return {.held = held_.size(),
          .held_bytes = held_bytes_,
          .released = released_count_,
          .dropped = dropped_,
          .p50 = times_.quantile(0.5),
          .p99 = times_.quantile(0.99),
          .max = times_.max()};
}

}  // namespace us::replay
