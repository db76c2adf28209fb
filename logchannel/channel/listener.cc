#include "logchannel/channel/listener.h"

#include <boost/asio/ip/tcp.hpp>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/check.h"
#include "logchannel/channel/sockets.h"

namespace us::log {
namespace {

constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::chrono::milliseconds kTellEvery{1000};

UserError cannot_listen(const Endpoint& at, const std::string& seen) {
  return {"CHAN-006",
          ExitCode::kUsage,
          fmt::format("cannot listen on {}", at.text()),
          seen,
          "an address of this host and a free port",
          "correct the address, or stop what uses the port: ss -ltnp"};
}

}  // namespace

Listener::Listener(std::shared_ptr<NetworkCore> core, std::shared_ptr<const TlsContext> tls,
                   Network::Connected accepted, Network::Failed rejected)
    : core_(std::move(core)),
      tls_(std::move(tls)),
      accepted_(std::move(accepted)),
      rejected_(std::move(rejected)),
      acceptor_(core_->io),
      pause_(core_->io),
      quiet_(core_->io) {}

Result<uint16_t> Listener::open(const Endpoint& at) {
  boost::system::error_code error;
  tcp::resolver resolver(core_->io);
  const auto found =
      resolver.resolve(at.host, std::to_string(at.port), tcp::resolver::passive, error);
  if (error || found.empty()) return cannot_listen(at, error.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) keep_from_children(acceptor_.native_handle());
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(tcp::acceptor::max_listen_connections, error);
  if (error) return cannot_listen(at, error.message());
  return acceptor_.local_endpoint().port();
}

void Listener::shut() { ::shutdown(acceptor_.native_handle(), SHUT_RDWR); }

void Listener::start() { accept_next(); }

void Listener::stop() {
  if (std::exchange(stopped_, true)) return;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  pause_.cancel();
  quiet_.cancel();
  for (const auto& handshake : std::exchange(handshakes_, Links())) {
    if (const auto link = handshake.lock()) link->end(ended_here());
  }
  accepted_ = nullptr;
  rejected_ = nullptr;
}

void Listener::accept_next() {
  if (stopped_) return;
  acceptor_.async_accept([self = shared_from_this()](auto error, tcp::socket socket) {
    if (self->stopped_) return;
    if (!error) {
      self->welcome(std::move(socket));
      return self->accept_next();
    }
    // Out of descriptors, or a peer that was gone already.
    self->pause_.expires_after(kAcceptPause);
    self->pause_.async_wait([self](auto) { self->accept_next(); });
  });
}

void Listener::welcome(tcp::socket socket) {
  const std::string peer = peer_of(socket);
  if (peer.empty()) return;  // gone already
  prepare(socket);
  if (handshakes_.size() >= kHandshakesMax) {
    // The oldest goes: it had its time, and whoever comes now may be the right one.
    const auto oldest = handshakes_.front().lock();
    US_CHECK(oldest != nullptr);
    oldest->end(ended_by_crowd(oldest->peer(), kHandshakesMax));
  }
  const auto place = handshakes_.emplace(handshakes_.end());
  StreamLink::Setup setup{core_, tls_, StreamLink::Role::kAccepted, peer};
  setup.up = [self = shared_from_this(), place](LinkPtr link) {
    self->handshakes_.erase(place);
    return self->accepted_(std::move(link));
  };
  setup.failed = [self = shared_from_this(), place](const LinkEnd& why) {
    if (self->stopped_) return;
    self->handshakes_.erase(place);
    self->reject(why);
  };
  const auto link = std::make_shared<StreamLink>(std::move(setup), std::move(socket));
  *place = link;
  link->start();
}

void Listener::reject(LinkEnd why) {
  ++untold_count_;
  untold_ = std::move(why);
  if (!telling_later_) tell();
}

void Listener::tell() {
  telling_later_ = false;
  if (stopped_ || !untold_) return;
  LinkEnd why = *std::exchange(untold_, std::nullopt);
  if (untold_count_ > 1) {
    why.error.seen += fmt::format(" (the last of {} peers that were turned away)", untold_count_);
  }
  untold_count_ = 0;
  telling_later_ = true;
  quiet_.expires_after(kTellEvery);
  quiet_.async_wait([self = shared_from_this()](auto error) {
    if (!error) self->tell();
  });
  if (rejected_) rejected_(std::move(why));
}

}  // namespace us::log
