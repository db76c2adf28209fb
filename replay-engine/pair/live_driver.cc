#include "replay-engine/pair/live_driver.h"

#include <future>

#include "hv/world/thread_support.h"

namespace us::replay {
namespace {

constexpr auto kConnectTimeout = std::chrono::milliseconds(2000);
constexpr auto kTick = std::chrono::milliseconds(5);
constexpr auto kLinger = std::chrono::milliseconds(200);

}  // namespace

std::chrono::nanoseconds steady_now() {
  return std::chrono::steady_clock::now().time_since_epoch();
}

LiveDriver::LiveDriver(const PairOptions& options, uint64_t generation, OutputGate& gate,
                       log::Network& network, Arbiter& arbiter, EventHandler event)
    : network_(network),
      arbiter_(arbiter),
      event_(std::move(event)),
      self_(std::make_shared<LiveDriver*>(this)),
      side_(options, generation, gate, *this) {
  claimer_ = std::thread([this] { claim_loop(); });
  std::weak_ptr<LiveDriver*> weak = self_;
  network_.every(kTick, [weak] {
    const auto self = weak.lock();
    if (self && *self != nullptr) (*self)->side_.tick(steady_now());
    return self != nullptr && *self != nullptr;
  });
}

LiveDriver::~LiveDriver() {
  close(std::chrono::milliseconds(0));
  {
    std::lock_guard lock(mutex_);
    quit_ = true;
  }
  changed_.notify_all();
  claimer_.join();
  // The network thread is the only one that follows the pointer: after this, no callback does.
  std::promise<void> cut;
  network_.post([&] {
    *self_ = nullptr;
    cut.set_value();
  });
  cut.get_future().wait();
}

void LiveDriver::enable(const log::Endpoint& peer, const log::Credentials& credentials) {
  {
    std::lock_guard lock(mutex_);
    endpoint_ = peer;
    credentials_ = credentials;
  }
  side_.enable(steady_now(), "no secondary yet at " + peer.text());
}

void LiveDriver::on_wake(std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
}

void LiveDriver::close(std::chrono::milliseconds linger) {
  if (const log::LinkPtr old = link()) old->close(linger);
}

std::string LiveDriver::peer() const {
  const log::LinkPtr now = link();
  if (now) return now->peer();
  std::lock_guard lock(mutex_);
  return endpoint_ ? endpoint_->text() : "";
}

log::LinkPtr LiveDriver::link() const {
  std::lock_guard lock(mutex_);
  return link_;
}

void LiveDriver::connect() {
  std::weak_ptr<LiveDriver*> weak = self_;
  log::Endpoint to;
  log::Credentials credentials;
  {
    std::lock_guard lock(mutex_);
    to = endpoint_.value_or(log::Endpoint{});
    credentials = credentials_;
  }
  network_.connect(
      to, credentials, kConnectTimeout,
      [weak](log::LinkPtr link) -> log::Link::Handlers {
        const auto self = weak.lock();
        if (!self || *self == nullptr)
          return {.message = [](log::Message) { return false; }, .closed = [](log::LinkEnd) {}};
        return (*self)->connected(std::move(link));
      },
      [weak](log::LinkEnd end) {
        const auto self = weak.lock();
        if (!self || *self == nullptr) return;
        const std::string why =
            end.error.seen.empty() ? end.error.what : end.error.what + ": " + end.error.seen;
        (*self)->side_.connect_failed(steady_now(), why);
      });
}

log::Link::Handlers LiveDriver::connected(log::LinkPtr link) {
  std::weak_ptr<LiveDriver*> weak = self_;
  const std::weak_ptr<log::Link> mine = link;
  {
    std::lock_guard lock(mutex_);
    link_ = std::move(link);
  }
  network_.post([weak] {
    const auto self = weak.lock();
    if (self && *self != nullptr) (*self)->side_.linked(steady_now());
  });
  const auto current = [weak, mine]() -> LiveDriver* {
    const auto self = weak.lock();
    if (!self || *self == nullptr) return nullptr;
    const log::LinkPtr now = (*self)->link();
    return now && now == mine.lock() ? *self : nullptr;
  };
  return {.message =
              [current](log::Message message) {
                LiveDriver* self = current();
                return self != nullptr && self->side_.message(steady_now(), std::move(message));
              },
          .closed =
              [current](log::LinkEnd end) {
                LiveDriver* self = current();
                if (self == nullptr) return;
                {
                  std::lock_guard lock(self->mutex_);
                  self->link_.reset();
                }
                self->side_.unlinked(steady_now(), end.error.what);
              }};
}

void LiveDriver::send(const log::Message& message) {
  if (const log::LinkPtr now = link()) now->send(message);
}

void LiveDriver::send_frame(ByteSpan frame) {
  if (const log::LinkPtr now = link()) now->send_frame(frame);
}

void LiveDriver::drop_link() {
  log::LinkPtr old;
  {
    std::lock_guard lock(mutex_);
    old = std::move(link_);
    link_.reset();
  }
  if (old) old->close(kLinger);
}

void LiveDriver::claim(uint64_t generation) {
  {
    std::lock_guard lock(mutex_);
    claims_.push_back(generation);
  }
  changed_.notify_all();
}

void LiveDriver::claim_loop() {
  hv::begin_thread("us-arbiter");
  for (;;) {
    uint64_t generation = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return quit_ || !claims_.empty(); });
      if (quit_) return;
      generation = claims_.front();
      claims_.pop_front();
    }
    const Claim claim = arbiter_.claim(generation);
    event("arbiter", fmt::format("generation {}: {}{}", generation,
                                 claim.verdict == ClaimVerdict::kWon    ? "won"
                                 : claim.verdict == ClaimVerdict::kLost ? "lost"
                                                                        : "unreachable",
                                 claim.detail.empty() ? "" : ", " + claim.detail));
    side_.claimed(steady_now(), claim);
  }
}

void LiveDriver::wake_guest() {
  std::function<void()> wake;
  {
    std::lock_guard lock(mutex_);
    wake = wake_;
  }
  if (wake) wake();
}

void LiveDriver::event(const std::string& name, const std::string& detail) {
  if (event_) event_(name, detail);
}

}  // namespace us::replay
