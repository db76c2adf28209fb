// StandbySide with a network and a clock.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "logchannel/channel/link.h"
#include "replay-engine/pair/live_driver.h"
#include "replay-engine/pair/standby_side.h"

namespace us::replay {

class StandbyDriver final : private StandbyActions {
 public:
  StandbyDriver(const PairOptions& options, OutputGate& shadow, log::Network& network,
                EventHandler event);
  ~StandbyDriver() override;

  StandbySide& side() { return side_; }
  // Errors: those of Network::listen. Returns the port.
  Result<uint16_t> listen(const log::Endpoint& at, const log::Credentials& credentials);
  // Waits for the next session; nothing: stop() was called.
  std::optional<StandbySession> wait_session();
  void stop(const std::string& why);
  std::string peer() const;

 private:
  void send(LinkId link, const log::Message& message) override;
  void drop_link(LinkId link) override;
  void pause_reading(LinkId link, bool paused) override;
  void session_begun() override;
  void event(const std::string& name, const std::string& detail) override;

  log::Link::Handlers accepted(log::LinkPtr link);
  log::LinkPtr find(LinkId id) const;

  log::Network& network_;
  EventHandler event_;
  mutable std::mutex mutex_;  // leaf
  std::condition_variable changed_;
  std::map<LinkId, log::LinkPtr> links_;
  LinkId next_link_ = 1;
  uint64_t begun_ = 0, taken_ = 0;
  bool stopped_ = false;

  std::shared_ptr<StandbyDriver*> self_;
  StandbySide side_;
};

}  // namespace us::replay
