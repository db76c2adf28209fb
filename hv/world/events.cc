#include "hv/world/events.h"

namespace us::hv {

bool WorldEvents::push(Input event) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || queue_.size() < kMost; });
    if (closed_) return false;
    queue_.push_back(std::move(event));
  }
  changed_.notify_all();
  notify_();
  return true;
}

bool WorldEvents::offer(Input event) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return false;
    if (queue_.size() >= kMost) {
      ++dropped_;
      return false;
    }
    queue_.push_back(std::move(event));
  }
  changed_.notify_all();
  notify_();
  return true;
}

std::optional<Input> WorldEvents::pop() {
  std::optional<Input> event;
  {
    std::lock_guard lock(mutex_);
    if (queue_.empty()) return event;
    event.emplace(std::move(queue_.front()));
    queue_.pop_front();
  }
  changed_.notify_all();
  return event;
}

bool WorldEvents::empty() const {
  std::lock_guard lock(mutex_);
  return queue_.empty();
}

void WorldEvents::wait_until(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline, [this] { return woken_ || closed_ || !queue_.empty(); });
  woken_ = false;
}

void WorldEvents::wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

void WorldEvents::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

uint64_t WorldEvents::dropped() const {
  std::lock_guard lock(mutex_);
  return dropped_;
}

}  // namespace us::hv
