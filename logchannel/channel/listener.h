// Accepts peers and keeps those that are not yet known at bay: few at once, for a short time, and
// the operator hears of those that failed at a bounded rate.
#pragma once

#include <list>
#include <memory>
#include <optional>

#include "logchannel/channel/stream_link.h"

namespace us::log {

// On the network thread, but for open() and shut().
class Listener : public std::enable_shared_from_this<Listener> {
 public:
  static constexpr size_t kHandshakesMax = 16;

  Listener(std::shared_ptr<NetworkCore> core, std::shared_ptr<const TlsContext> tls,
           Network::Connected accepted, Network::Failed rejected);
  // Binds. Before anything else, on any thread. Error CHAN-006; the port otherwise.
  Result<uint16_t> open(const Endpoint& at);
  // Nobody gets in any more. Any thread.
  void shut();

  void start();
  void stop();

 private:
  using Links = std::list<std::weak_ptr<StreamLink>>;

  Result<uint16_t> open_at(const tcp::endpoint& at, const UserError& cannot);
  void accept_next();
  void welcome(tcp::socket socket);
  void reject(LinkEnd why);
  void tell();

  std::shared_ptr<NetworkCore> core_;
  std::shared_ptr<const TlsContext> tls_;
  Network::Connected accepted_;
  Network::Failed rejected_;
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;  // after the system refused to accept
  asio::steady_timer quiet_;  // until the next rejection may be told
  bool telling_later_ = false;
  std::optional<LinkEnd> untold_{};
  size_t untold_count_ = 0;
  Links handshakes_{};  // oldest first
  bool stopped_ = false;
};

}  // namespace us::log
