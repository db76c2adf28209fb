#include "replay-engine/arbiter/bounded_arbiter.h"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "replay-engine/arbiter/claim_record.h"

namespace us::replay {
namespace {

// What callers and the thread share; the thread may outlive the arbiter.
struct Desk {
  std::mutex mutex;
  std::condition_variable changed;
  std::function<void()> job;  // empty: none waits
  bool busy = false;          // the thread is in one
  bool quit = false;
};

void work(const std::shared_ptr<Desk>& desk) {
  std::unique_lock lock(desk->mutex);
  while (true) {
    desk->changed.wait(lock, [&] { return desk->quit || desk->job; });
    if (desk->quit) return;
    {
      const std::function<void()> job = std::exchange(desk->job, nullptr);
      desk->busy = true;
      lock.unlock();
      job();
    }
    lock.lock();
    desk->busy = false;
    desk->changed.notify_all();
  }
}

class BoundedArbiter final : public Arbiter {
 public:
  BoundedArbiter(std::shared_ptr<Arbiter> inner, std::chrono::milliseconds timeout)
      : inner_(std::move(inner)), timeout_(timeout), thread_(work, desk_) {}

  ~BoundedArbiter() override {
    bool stuck;
    {
      const std::lock_guard lock(desk_->mutex);
      desk_->quit = true;
      stuck = desk_->busy;
    }
    desk_->changed.notify_all();
    if (stuck) {
      thread_.detach();
    } else {
      thread_.join();
    }
  }

  Claim claim(uint64_t generation) override {
    US_CHECK(generation > 0);
    const auto inner = inner_;
    const auto got = run<Claim>([inner, generation] { return inner->claim(generation); });
    return got ? *got : unreachable(0, silence());
  }

  Result<ArbiterState> look() override {
    const auto inner = inner_;
    const auto got = run<Result<ArbiterState>>([inner] { return inner->look(); });
    return got ? *got : unreachable_error(text(), silence());
  }

  Status release(uint64_t generation) override {
    const auto inner = inner_;
    const auto got = run<Status>([inner, generation] { return inner->release(generation); });
    return got ? *got : unreachable_error(text(), silence());
  }

  std::string text() const override { return inner_->text(); }

 private:
  std::string silence() const { return fmt::format("no answer within {} ms", timeout_.count()); }

  template <class T>
  std::optional<T> run(std::function<T()> call) {
    const auto deadline = std::chrono::steady_clock::now() + timeout_;
    const auto answer = std::make_shared<std::optional<T>>();  // under the desk's mutex
    const auto desk = desk_;
    std::unique_lock lock(desk->mutex);
    const auto idle = [&] { return !desk->busy && !desk->job; };
    if (!desk->changed.wait_until(lock, deadline, idle)) return std::nullopt;
    desk->job = [desk_ptr = desk.get(), answer, call = std::move(call)] {
      T value = call();
      const std::lock_guard answering(desk_ptr->mutex);
      answer->emplace(std::move(value));
    };
    desk->changed.notify_all();
    desk->changed.wait_until(lock, deadline, [&] { return answer->has_value() && idle(); });
    if (!answer->has_value() && desk->job) desk->job = nullptr;  // it was not even begun
    return *answer;
  }

  const std::shared_ptr<Arbiter> inner_;
  const std::chrono::milliseconds timeout_;
  const std::shared_ptr<Desk> desk_ = std::make_shared<Desk>();
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Arbiter> make_bounded_arbiter(std::shared_ptr<Arbiter> inner,
                                              std::chrono::milliseconds timeout) {
  return std::make_unique<BoundedArbiter>(std::move(inner), timeout);
}

}  // namespace us::replay
