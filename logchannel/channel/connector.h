// One attempt to connect: name, TCP, TLS, in one time limit.
#pragma once

#include <memory>

#include "logchannel/channel/stream_link.h"

namespace us::log {

// On the network thread.
class Connector : public std::enable_shared_from_this<Connector> {
 public:
  struct Setup {
    std::shared_ptr<NetworkCore> core;
    std::shared_ptr<const TlsContext> tls{};
    Endpoint to{};
    std::chrono::milliseconds timeout{};
    Network::Connected connected{};
    Network::Failed failed{};
  };
  explicit Connector(Setup setup);
  // Called when the attempt is over, or a link of its own now.
  void when_done(std::function<void()> done) { done_ = std::move(done); }
  void start();
  void end(const LinkEnd& why);

 private:
  void connect(const tcp::resolver::results_type& endpoints);
  void hand_over();
  tcp::socket registered_anew(boost::system::error_code& error);

  Setup setup_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  std::function<void()> done_{};
  bool over_ = false;
};

}  // namespace us::log
