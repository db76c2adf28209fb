#include "tools/control/metrics.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cstring>
#include <optional>
#include <thread>
#include <unistd.h>

#include "tools/control/unix_socket.h"

namespace us::tools {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

constexpr size_t kConnectionsMax = 16;
constexpr std::chrono::seconds kPatience{10};  // for a request, and for its answer to be taken

// One connection: one request, one answer.
template <class Protocol>
class Connection : public std::enable_shared_from_this<Connection<Protocol>> {
 public:
  Connection(typename Protocol::socket socket, const std::function<FtStatus()>& get,
             std::shared_ptr<size_t> open)
      : stream_(std::move(socket)), get_(get), open_(std::move(open)) {
    ++*open_;
    parser_.header_limit(8 * 1024);
    parser_.body_limit(0);
  }
  ~Connection() { --*open_; }

  void run() {
    stream_.expires_after(kPatience);
    http::async_read(stream_, buffer_, parser_,
                     [self = this->shared_from_this()](error_code error, size_t) {
                       if (!error) self->answer();
                     });
  }

 private:
  void answer() {
    const auto& request = parser_.get();
    const bool reads = request.method() == http::verb::get || request.method() == http::verb::head;
    const beast::string_view path = request.target().substr(0, request.target().find('?'));
    response_.version(11);
    response_.keep_alive(false);
    if (!reads) {
      response_.result(http::status::method_not_allowed);
      response_.set(http::field::allow, "GET, HEAD");
    } else if (path != "/metrics" && path != "/") {
      response_.result(http::status::not_found);
    } else {
      response_.result(http::status::ok);
      response_.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
      response_.body() = metrics_text(get_());
    }
    response_.prepare_payload();
    if (request.method() == http::verb::head) response_.body().clear();
    stream_.expires_after(kPatience);
    http::async_write(stream_, response_, [self = this->shared_from_this()](error_code, size_t) {});
  }

  beast::basic_stream<Protocol> stream_;
  const std::function<FtStatus()>& get_;
  const std::shared_ptr<size_t> open_;  // the thread's count of connections
  beast::flat_buffer buffer_{16 * 1024};
  http::request_parser<http::empty_body> parser_;
  http::response<http::string_body> response_;
};

template <class Protocol>
class Server final : public MetricsServer {
 public:
  // `listener` is taken over. `unlink_path`: removed at the end.
  Server(std::string where, int listener, Protocol protocol, std::string unlink_path,
         std::function<FtStatus()> get)
      : where_(std::move(where)),
        unlink_path_(std::move(unlink_path)),
        get_(std::move(get)),
        acceptor_(context_, protocol, listener) {
    accept();
    thread_ = std::thread([this] { context_.run(); });
  }
  ~Server() override {
    if (!unlink_path_.empty()) ::unlink(unlink_path_.c_str());
    context_.stop();
    thread_.join();
  }
  const std::string& where() const override { return where_; }

 private:
  void accept() {
    acceptor_.async_accept([this](error_code error, typename Protocol::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (!error && *open_ < kConnectionsMax)
        std::make_shared<Connection<Protocol>>(std::move(socket), get_, open_)->run();
      if (!error) return accept();
      // Out of descriptors, perhaps: not again at once.
      pause_.expires_after(std::chrono::milliseconds(100));
      pause_.async_wait([this](error_code stopped) {
        if (!stopped) accept();
      });
    });
  }

  const std::string where_, unlink_path_;
  const std::function<FtStatus()> get_;
  const std::shared_ptr<size_t> open_ = std::make_shared<size_t>(0);
  asio::io_context context_{1};
  typename Protocol::acceptor acceptor_;
  asio::steady_timer pause_{context_};
  std::thread thread_;
};

UserError bad_address(const std::string& where) {
  return {.id = "MET-001",
          .exit_code = ExitCode::kUsage,
          .what = "cannot serve metrics at \"" + where + "\"",
          .seen = "neither a Unix socket nor a loopback address with a port",
          .needed = "unix:PATH, 127.0.0.1:PORT or [::1]:PORT",
          .mend = "correct --metrics; a proxy can serve them to others"};
}

UserError cannot_listen(const std::string& where, const std::string& seen) {
  return {.id = "MET-002",
          .exit_code = ExitCode::kHostCannot,
          .what = "cannot serve metrics at " + where,
          .seen = seen,
          .needed = "an address that is free",
          .mend = "another --metrics, or end what uses this one"};
}

Result<std::unique_ptr<MetricsServer>> serve_unix(const std::string& where, const std::string& path,
                                                  std::function<FtStatus()> get) {
  auto listener = listen_unix(path);
  if (!listener.ok()) return cannot_listen(where, std::strerror(listener.error()));
  return std::unique_ptr<MetricsServer>(std::make_unique<Server<asio::local::stream_protocol>>(
      where, listener->release(), asio::local::stream_protocol(), path, std::move(get)));
}

// "127.0.0.1:9100", "[::1]:9100"
std::optional<asio::ip::tcp::endpoint> loopback_endpoint(const std::string& where) {
  const size_t colon = where.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  std::string host = where.substr(0, colon);
  const std::string port = where.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  error_code error;
  const auto address = asio::ip::make_address(host, error);
  if (error || !address.is_loopback()) return std::nullopt;
  if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  const unsigned number = static_cast<unsigned>(std::stoul(port));
  if (number > 65535) return std::nullopt;
  return asio::ip::tcp::endpoint(address, static_cast<uint16_t>(number));
}

Result<std::unique_ptr<MetricsServer>> serve_tcp(const std::string& where,
                                                 const asio::ip::tcp::endpoint& at,
                                                 std::function<FtStatus()> get) {
  asio::io_context context;
  asio::ip::tcp::acceptor acceptor(context);
  error_code error;
  acceptor.open(at.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(at, error);
  if (!error) acceptor.listen(16, error);
  if (error) return cannot_listen(where, error.message());
  const auto bound = acceptor.local_endpoint(error);
  const int fd = acceptor.release(error);
  if (error) return cannot_listen(where, error.message());
  std::string host = bound.address().to_string();
  if (bound.address().is_v6()) host = "[" + host + "]";
  const std::string text = fmt::format("{}:{}", host, bound.port());
  return std::unique_ptr<MetricsServer>(std::make_unique<Server<asio::ip::tcp>>(
      text, fd, at.protocol(), std::string(), std::move(get)));
}

}  // namespace

Result<std::unique_ptr<MetricsServer>> serve_metrics(const std::string& where,
                                                     std::function<FtStatus()> get) {
  if (where.starts_with("unix:") && where.size() > 5)
    return serve_unix(where, where.substr(5), std::move(get));
  const auto endpoint = loopback_endpoint(where);
  if (!endpoint) return bad_address(where);
  return serve_tcp(where, *endpoint, std::move(get));
}

}  // namespace us::tools
