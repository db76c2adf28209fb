#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <pthread.h>
#include <signal.h>
#include <thread>

#include "base/check.h"
#include "logchannel/channel/connector.h"
#include "logchannel/channel/listener.h"
#include "logchannel/channel/sockets.h"

namespace us::log {
namespace {

// A periodic call. Network thread.
class Ticker : public std::enable_shared_from_this<Ticker> {
 public:
  Ticker(asio::io_context& io, std::chrono::milliseconds period, std::function<bool()> f)
      : timer_(io), period_(period), f_(std::move(f)) {
    timer_.expires_after(period_);
  }

  void wait(std::function<void()> done) {
    timer_.async_wait([self = shared_from_this(), done = std::move(done)](auto error) {
      if (!error && self->f_ && self->f_()) {
        // A late call does not make the ones after it come closer together.
        const auto now = std::chrono::steady_clock::now();
        self->timer_.expires_at(std::max(self->timer_.expiry() + self->period_, now));
        return self->wait(done);
      }
      self->stop();
      done();
    });
  }
  void stop() {
    f_ = nullptr;
    timer_.cancel();
  }

 private:
  asio::steady_timer timer_;
  std::chrono::milliseconds period_;
  std::function<bool()> f_;
};

class AsioNetwork final : public Network {
 public:
  AsioNetwork() : core_(std::make_shared<NetworkCore>()), work_(core_->io.get_executor()) {
    // The thread inherits the mask: no signal of ours finds it, not even at its start.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    thread_ = std::thread([this] { run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~AsioNetwork() override {
    US_CHECK(std::this_thread::get_id() != thread_.get_id(), "a network destroyed by its thread");
    asio::post(core_->io, [this] { close_all(); });
    thread_.join();
  }

  void connect(const Endpoint& to, const Credentials& credentials,
               std::chrono::milliseconds timeout, Connected connected, Failed failed) override {
    auto tls = context_of(credentials);
    if (!tls) {
      return post([failed = std::move(failed), error = tls.error()] {
        failed({LinkEnd::Kind::kBadPeer, error});
      });
    }
    Connector::Setup setup{core_, *tls, to, timeout, std::move(connected), std::move(failed)};
    post([this, setup = std::move(setup)]() mutable { start_connecting(std::move(setup)); });
  }

  Result<uint16_t> listen(const Endpoint& at, const Credentials& credentials, Connected accepted,
                          Failed rejected) override {
    US_CHECK(listener_ == nullptr, "a network that listens already");
    auto tls = context_of(credentials);
    if (!tls) return tls.error();
    const auto listener =
        std::make_shared<Listener>(core_, *tls, std::move(accepted), std::move(rejected));
    auto port = listener->open(at);
    if (!port) {
      // Its sockets belong to the network thread.
      post([listener] { listener->stop(); });
      return port;
    }
    listener_ = listener;
    post([listener] { listener->start(); });
    return port;
  }

  void stop_listening() override {
    if (listener_ == nullptr) return;
    listener_->shut();
    post([listener = std::move(listener_)] { listener->stop(); });
    listener_ = nullptr;
  }

  void post(std::function<void()> f) override { asio::post(core_->io, std::move(f)); }

  void every(std::chrono::milliseconds period, std::function<bool()> f) override {
    const auto ticker = std::make_shared<Ticker>(core_->io, period, std::move(f));
    post([this, ticker] {
      if (closing_) return;
      tickers_.insert(ticker);
      ticker->wait([this, ticker] { tickers_.erase(ticker); });
    });
  }

 private:
  static Result<std::shared_ptr<const TlsContext>> context_of(const Credentials& credentials) {
    if (credentials.kind == CredentialKind::kPlaintext) return std::shared_ptr<const TlsContext>();
    return TlsContext::make(credentials);
  }

  void run() {
    pthread_setname_np(pthread_self(), "us-network");
    core_->io.run();
  }

  // --- Network thread

  void start_connecting(Connector::Setup setup) {
    if (closing_) {
      if (setup.failed) setup.failed(ended_here());
      return;
    }
    const auto connector = std::make_shared<Connector>(std::move(setup));
    connector->when_done([this, raw = connector.get()] { forget(raw); });
    connectors_.insert(connector);
    connector->start();
  }

  void forget(Connector* connector) {
    std::erase_if(connectors_, [&](const auto& each) { return each.get() == connector; });
  }

  void close_all() {
    closing_ = true;
    if (listener_ != nullptr) std::exchange(listener_, nullptr)->stop();
    for (const auto& ticker : std::exchange(tickers_, {})) ticker->stop();
    for (const auto& connector : std::exchange(connectors_, {})) connector->end(ended_here());
    // Handlers of links may open nothing new, and links leave the set as they end.
    while (!core_->links.empty()) {
      const auto link = *core_->links.begin();
      link->end(ended_here());
    }
    work_.reset();
  }

  std::shared_ptr<NetworkCore> core_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::shared_ptr<Listener> listener_;
  bool closing_ = false;
  std::set<std::shared_ptr<Connector>> connectors_;
  std::set<std::shared_ptr<Ticker>> tickers_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Network> Network::start() { return std::make_unique<AsioNetwork>(); }

std::string peer_of(const tcp::socket& socket) {
  boost::system::error_code error;
  const tcp::endpoint endpoint = socket.remote_endpoint(error);
  if (error) return "";
  return Endpoint{endpoint.address().to_string(), endpoint.port()}.text();
}

}  // namespace us::log
