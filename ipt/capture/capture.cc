#include "ipt/capture/capture.h"

#include <utility>

namespace us::ipt {
namespace {

// What is handed over between cuts is worth the swap.
constexpr size_t kPumpBytes = size_t{1} << 20;

}  // namespace

Capture::Capture(TraceHost& host, const TracePmu& pmu, const CaptureOptions& options,
                 TraceSink& sink)
    : host_(host),
      pmu_(pmu),
      options_(options),
      sink_(sink),
      filter_(options.aux.scope == TraceScope::kEverything,
              [this](ByteSpan bytes) { hand_over(bytes); }) {}

Result<std::unique_ptr<Capture>> Capture::open(TraceHost& host, const TracePmu& pmu,
                                               const CaptureOptions& options, TraceSink& sink,
                                               uint64_t ip) {
  std::unique_ptr<Capture> capture(new Capture(host, pmu, options, sink));
  if (Status s = capture->start(); !s.ok()) return s.error();
  capture->begin_stretch(ip);
  return capture;
}

Capture::~Capture() { copier_.reset(); }

Status Capture::start() {
  auto event = AuxEvent::open(host_, pmu_, options_.aux);
  if (!event.ok()) return event.error();
  event_ = std::move(event).value();
  if (options_.copier) copier_.emplace(*event_, options_.queue_bytes);
  return Done{};
}

void Capture::begin_stretch(uint64_t ip) {
  filter_.begin_stretch();
  filter_.resume(ip);
  if (event_ == nullptr || !event_->go()) loss_ |= loss_flag::kNotTraced;
}

void Capture::hand_over(ByteSpan bytes) {
  if (refused_) return;
  refused_ = !sink_.accept(bytes);
  if (refused_) loss_ |= loss_flag::kSinkRefused;
}

// Everything that the kernel has published goes to the sink.
void Capture::drain() {
  if (event_ == nullptr) return;
  const std::lock_guard lock(event_->mutex());
  const auto feed = [this](ByteSpan bytes) {
    statistics_.bytes += bytes.size();
    filter_.feed(bytes);
  };
  if (copier_) {
    copier_->take(spare_, loss_);
    feed(spare_);
    spare_.clear();
  }
  loss_ |= event_->collect(feed);
}

void Capture::pause() {
  if (event_ != nullptr && !event_->stop()) loss_ |= loss_flag::kNotTraced;
  drain();
}

void Capture::finish_stretch(uint64_t ip) {
  pause();
  loss_ |= filter_.end_stretch();
  if (event_ != nullptr && (!event_->started() || !event_->has_hardware()))
    loss_ |= loss_flag::kNotTraced;
  ++statistics_.cuts;
  if (loss_ == 0) {
    sink_.stands(ip);
    return;
  }
  ++statistics_.lossy_cuts;
  sink_.lost(std::exchange(loss_, 0));
  refused_ = false;
  if (event_ != nullptr) statistics_.lost_records += event_->lost_records();
  copier_.reset();
  event_.reset();
  filter_.lose();
}

void Capture::cut(uint64_t ip) {
  finish_stretch(ip);
  if (event_ == nullptr) {
    ++statistics_.reopened;
    // Refused, it is tried again at the next cut; until then nothing is traced, and that is said.
    (void)start();
  }
  begin_stretch(ip);
}

void Capture::stop(uint64_t ip) {
  finish_stretch(ip);
  copier_.reset();
  event_.reset();
}

void Capture::delivered(uint64_t from, uint64_t to) {
  ++statistics_.pauses;
  pause();
  if (loss_ != 0) return;  // the stretch is lost; the event stands until its end
  sink_.delivered(from, to);
  filter_.resume(to);
  if (!event_->go()) loss_ |= loss_flag::kNotTraced;
}

void Capture::pump() {
  if (copier_ && copier_->waiting() >= kPumpBytes) drain();
}

}  // namespace us::ipt
