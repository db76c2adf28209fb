#include "replay-engine/arbiter/http_post.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

namespace us::replay {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

class Post {
 public:
  Post(const HttpEndpoint& to, const std::string& target, const std::string& body)
      : request_(http::verb::post, target, 11, body) {
    request_.set(http::field::host, to_text(to));
    request_.set(http::field::content_type, "application/json");
    request_.keep_alive(false);
    request_.prepare_payload();
    response_.body_limit(kHttpBodyMax);
    response_.header_limit(16 * 1024);
  }

  Result<HttpAnswer, std::string> run(const HttpEndpoint& to, std::chrono::milliseconds timeout) {
    asio::ip::tcp::resolver resolver(context_);
    error_code failed;
    const auto addresses = resolver.resolve(to.host, to.port, failed);
    if (failed) return "resolving " + to.host + ": " + failed.message();
    // One deadline for the whole exchange: it is set once.
    stream_.expires_after(timeout);
    stream_.async_connect(addresses, [this](error_code error, const asio::ip::tcp::endpoint&) {
      if (!over(error, "connecting")) write();
    });
    context_.run();
    if (error_) return to_text(to) + ": " + step_ + ": " + error_.message();
    return HttpAnswer{response_.get().result_int(),
                      beast::buffers_to_string(response_.get().body().data())};
  }

 private:
  void write() {
    http::async_write(stream_, request_, [this](error_code error, size_t) {
      if (!over(error, "sending the request")) read();
    });
  }
  void read() {
    http::async_read(stream_, buffer_, response_,
                     [this](error_code error, size_t) { over(error, "reading the answer"); });
  }
  bool over(error_code error, const char* step) {
    error_ = error;
    step_ = step;
    return static_cast<bool>(error);
  }

  asio::io_context context_;
  beast::tcp_stream stream_{context_};
  beast::flat_buffer buffer_{kHttpBodyMax};
  http::request<http::string_body> request_;
  // Not a string_body: that reserves whatever length the peer claims.
  http::response_parser<http::basic_dynamic_body<beast::flat_buffer>> response_;
  error_code error_;
  const char* step_ = "";
};

}  // namespace

std::string to_text(const HttpEndpoint& endpoint) {
  if (endpoint.host.find(':') != std::string::npos)
    return "[" + endpoint.host + "]:" + endpoint.port;
  return endpoint.host + ":" + endpoint.port;
}

Result<HttpAnswer, std::string> http_post(const HttpEndpoint& to, const std::string& target,
                                          const std::string& body,
                                          std::chrono::milliseconds timeout) {
  return Post(to, target, body).run(to, timeout);
}

}  // namespace us::replay
