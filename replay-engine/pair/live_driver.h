// LiveSide with a network, an arbiter and a clock.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "logchannel/channel/link.h"
#include "replay-engine/arbiter/arbiter.h"
#include "replay-engine/pair/live_side.h"

namespace us::replay {

// The clock that both sides' patience is measured with: monotonic, this host's own.
std::chrono::nanoseconds steady_now();

using EventHandler = std::function<void(const std::string& name, const std::string& detail)>;

class LiveDriver final : private LiveActions {
 public:
  // All references outlive it.
  LiveDriver(const PairOptions& options, uint64_t generation, OutputGate& gate,
             log::Network& network, Arbiter& arbiter, EventHandler event);
  ~LiveDriver() override;

  LiveSide& side() { return side_; }
  // Finds that secondary, now and whenever there is none.
  void enable(const log::Endpoint& peer, const log::Credentials& credentials);
  // Called, from any thread, when the vCPU thread should come to a point.
  void on_wake(std::function<void()> wake);
  // The link's last bytes are given `linger` to leave.
  void close(std::chrono::milliseconds linger);
  std::string peer() const;

 private:
  void connect() override;
  void send(const log::Message& message) override;
  void send_frame(ByteSpan frame) override;
  void drop_link() override;
  void claim(uint64_t generation) override;
  void wake_guest() override;
  void event(const std::string& name, const std::string& detail) override;

  log::Link::Handlers connected(log::LinkPtr link);
  log::LinkPtr link() const;
  void claim_loop();

  log::Network& network_;
  Arbiter& arbiter_;
  EventHandler event_;

  mutable std::mutex mutex_;  // leaf: nothing is called with it held
  std::condition_variable changed_;
  std::optional<log::Endpoint> endpoint_;
  log::Credentials credentials_;
  log::LinkPtr link_;
  std::function<void()> wake_;
  std::deque<uint64_t> claims_;
  bool quit_ = false;

  // Callbacks that are still on their way when this object goes find it gone.
  std::shared_ptr<LiveDriver*> self_;
  LiveSide side_;
  std::thread claimer_;
};

}  // namespace us::replay
