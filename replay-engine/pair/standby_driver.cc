#include "replay-engine/pair/standby_driver.h"

#include <future>

namespace us::replay {
namespace {

constexpr auto kTick = std::chrono::milliseconds(5);
constexpr auto kLinger = std::chrono::milliseconds(200);

}  // namespace

StandbyDriver::StandbyDriver(const PairOptions& options, OutputGate& shadow, log::Network& network,
                             EventHandler event)
    : network_(network),
      event_(std::move(event)),
      self_(std::make_shared<StandbyDriver*>(this)),
      side_(options, shadow, *this) {
  std::weak_ptr<StandbyDriver*> weak = self_;
  network_.every(kTick, [weak] {
    const auto self = weak.lock();
    if (self && *self != nullptr) (*self)->side_.tick(steady_now());
    return self != nullptr && *self != nullptr;
  });
}

StandbyDriver::~StandbyDriver() {
  stop("ended");
  network_.stop_listening();
  std::promise<void> cut;
  network_.post([&] {
    *self_ = nullptr;
    cut.set_value();
  });
  cut.get_future().wait();
  std::map<LinkId, log::LinkPtr> left;
  {
    std::lock_guard lock(mutex_);
    left.swap(links_);
  }
  for (const auto& [id, link] : left) link->close(kLinger);
}

Result<uint16_t> StandbyDriver::listen(const log::Endpoint& at,
                                       const log::Credentials& credentials) {
  std::weak_ptr<StandbyDriver*> weak = self_;
  return network_.listen(
      at, credentials,
      [weak](log::LinkPtr link) -> log::Link::Handlers {
        const auto self = weak.lock();
        if (!self || *self == nullptr)
          return {.message = [](log::Message) { return false; }, .closed = [](log::LinkEnd) {}};
        return (*self)->accepted(std::move(link));
      },
      [weak](log::LinkEnd end) {
        const auto self = weak.lock();
        if (self && *self != nullptr) (*self)->event("peer-rejected", end.error.text());
      });
}

log::Link::Handlers StandbyDriver::accepted(log::LinkPtr link) {
  std::weak_ptr<StandbyDriver*> weak = self_;
  LinkId id = 0;
  {
    std::lock_guard lock(mutex_);
    id = next_link_++;
    links_[id] = std::move(link);
  }
  return {.message =
              [weak, id](log::Message message) {
                const auto self = weak.lock();
                return self && *self != nullptr &&
                       (*self)->side_.message(steady_now(), id, std::move(message));
              },
          .closed =
              [weak, id](log::LinkEnd end) {
                const auto self = weak.lock();
                if (!self || *self == nullptr) return;
                {
                  std::lock_guard lock((*self)->mutex_);
                  (*self)->links_.erase(id);
                }
                (*self)->side_.unlinked(steady_now(), id, end.error.what);
              }};
}

log::LinkPtr StandbyDriver::find(LinkId id) const {
  std::lock_guard lock(mutex_);
  const auto found = links_.find(id);
  return found == links_.end() ? nullptr : found->second;
}

std::string StandbyDriver::peer() const {
  std::lock_guard lock(mutex_);
  return links_.empty() ? "" : links_.rbegin()->second->peer();
}

std::optional<StandbySession> StandbyDriver::wait_session() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stopped_ || begun_ != taken_; });
  if (stopped_) return std::nullopt;
  taken_ = begun_;
  lock.unlock();
  return side_.take_session();
}

void StandbyDriver::stop(const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  side_.close(why);
}

void StandbyDriver::send(LinkId link, const log::Message& message) {
  if (const log::LinkPtr found = find(link)) found->send(message);
}

void StandbyDriver::drop_link(LinkId link) {
  if (const log::LinkPtr found = find(link)) found->close(kLinger);
}

void StandbyDriver::pause_reading(LinkId link, bool paused) {
  if (const log::LinkPtr found = find(link)) found->pause_reading(paused);
}

void StandbyDriver::session_begun() {
  {
    std::lock_guard lock(mutex_);
    ++begun_;
  }
  changed_.notify_all();
}

void StandbyDriver::event(const std::string& name, const std::string& detail) {
  if (event_) event_(name, detail);
}

}  // namespace us::replay
