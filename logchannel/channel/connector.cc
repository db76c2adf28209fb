#include "logchannel/channel/connector.h"

#include <boost/asio/connect.hpp>
#include <unistd.h>

#include "logchannel/channel/sockets.h"

namespace us::log {

Connector::Connector(Setup setup)
    : setup_(std::move(setup)),
      resolver_(setup_.core->io),
      socket_(setup_.core->io),
      timer_(setup_.core->io) {}

void Connector::start() {
  timer_.expires_after(setup_.timeout);
  timer_.async_wait([self = shared_from_this()](auto error) {
    if (error) return;
    self->end(ended_out_of_time(self->setup_.to.text(), "connection", self->setup_.timeout));
  });
  const std::string port = std::to_string(setup_.to.port);
  // An address needs no resolver, which may be slow.
  boost::system::error_code no_address;
  const auto address = asio::ip::make_address(setup_.to.host, no_address);
  if (!no_address) {
    const tcp::endpoint endpoint(address, setup_.to.port);
    return connect(tcp::resolver::results_type::create(endpoint, setup_.to.host, port));
  }
  resolver_.async_resolve(
      setup_.to.host, port, [self = shared_from_this()](auto error, const auto& found) {
        if (self->over_) return;
        if (!error) return self->connect(found);
        self->end(ended_unconnected(self->setup_.to.text(), false, error.message()));
      });
}

void Connector::connect(const tcp::resolver::results_type& endpoints) {
  asio::async_connect(socket_, endpoints, [self = shared_from_this()](auto error, const auto&) {
    if (self->over_) return;
    if (!error) return self->hand_over();
    const bool refused = error == asio::error::connection_refused;
    self->end(ended_unconnected(self->setup_.to.text(), refused, error.message()));
  });
}

// While connecting, Asio asked epoll to report room for writing, and would go on to be woken by
// that before each wait for reading: a socket that it has not seen yet starts without.
tcp::socket Connector::registered_anew(boost::system::error_code& error) {
  tcp::socket fresh(setup_.core->io);
  const auto protocol = socket_.local_endpoint(error).protocol();
  if (error) return fresh;
  const int fd = socket_.release(error);
  if (error) return fresh;
  fresh.assign(protocol, fd, error);
  if (error) ::close(fd);
  return fresh;
}

void Connector::hand_over() {
  boost::system::error_code error;
  tcp::socket socket = registered_anew(error);
  if (error) return end(ended_unconnected(setup_.to.text(), false, error.message()));
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      timer_.expiry() - std::chrono::steady_clock::now());
  over_ = true;
  timer_.cancel();
  prepare(socket);
  StreamLink::Setup setup{setup_.core, setup_.tls, StreamLink::Role::kConnected, setup_.to.text()};
  setup.patience = std::max(left, std::chrono::milliseconds(1));
  setup.up = std::move(setup_.connected);
  setup.failed = std::move(setup_.failed);
  std::make_shared<StreamLink>(std::move(setup), std::move(socket))->start();
  if (done_) done_();
}

void Connector::end(const LinkEnd& why) {
  if (std::exchange(over_, true)) return;
  boost::system::error_code ignored;
  timer_.cancel();
  resolver_.cancel();
  socket_.close(ignored);
  const auto self = shared_from_this();
  if (done_) done_();
  setup_.connected = nullptr;
  if (const auto failed = std::exchange(setup_.failed, nullptr)) failed(why);
}

}  // namespace us::log
