#include "ipt/capture/copier.h"

#include <csignal>
#include <pthread.h>
#include <utility>

#include "base/check.h"

namespace us::ipt {
namespace {

// How long a thread that is told to stop may still wait.
constexpr int kWaitMs = 10;

}  // namespace

Copier::Copier(AuxEvent& event, size_t queue_bytes) : event_(event), queue_bytes_(queue_bytes) {
  // Signals are for others.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  thread_ = std::thread([this] { run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Copier::~Copier() {
  stop_ = true;
  thread_.join();
}

void Copier::run() {
  while (!stop_.load()) {
    if (event_.wait(kWaitMs) < 0) return;
    const std::lock_guard lock(event_.mutex());
    if (queue_.size() >= queue_bytes_) continue;
    loss_ |= event_.collect(
        [this](ByteSpan bytes) { queue_.insert(queue_.end(), bytes.begin(), bytes.end()); },
        queue_bytes_ - queue_.size());
    waiting_.store(queue_.size(), std::memory_order_relaxed);
  }
}

void Copier::take(Bytes& into, uint32_t& loss) {
  US_CHECK(into.empty());
  std::swap(queue_, into);
  loss |= std::exchange(loss_, 0);
  waiting_.store(0, std::memory_order_relaxed);
}

}  // namespace us::ipt
