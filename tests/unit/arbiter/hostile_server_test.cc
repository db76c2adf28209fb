// The etcd arbiter against servers that are none: whatever they answer, nothing is won.
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>
#include <doctest/doctest.h>
#include <thread>

#include "replay-engine/arbiter/http_post.h"
#include "tests/unit/arbiter/rig.h"

using namespace us;
using namespace us::replay;
using namespace us::replay::testing;
using boost::asio::ip::tcp;

namespace {

// Answers every connection's request with these bytes, then closes it.
class Server {
 public:
  explicit Server(std::string answer)
      : answer_(std::move(answer)),
        acceptor_(context_, tcp::endpoint(boost::asio::ip::address_v4::loopback(), 0)),
        port_(acceptor_.local_endpoint().port()),
        thread_([this] { run(); }) {}
  ~Server() {
    quit_ = true;
    boost::system::error_code ignored;
    tcp::socket waker(context_);
    waker.connect(tcp::endpoint(boost::asio::ip::address_v4::loopback(), port_), ignored);
    thread_.join();
  }
  std::string endpoint() const { return fmt::format("127.0.0.1:{}", port_); }

 private:
  void run() {
    while (!quit_) {
      boost::system::error_code error;
      tcp::socket socket(context_);
      acceptor_.accept(socket, error);
      if (error || quit_) return;
      boost::asio::streambuf request(1 << 20);
      boost::asio::read_until(socket, request, "\r\n\r\n", error);
      boost::asio::write(socket, boost::asio::buffer(answer_), error);
    }
  }
  const std::string answer_;
  boost::asio::io_context context_;
  tcp::acceptor acceptor_;
  const unsigned short port_;
  std::atomic<bool> quit_{false};
  std::thread thread_;
};

std::string ok(const std::string& body) {
  return fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
}

}  // namespace

TEST_CASE("answers that are garbage, cut short, endless or of other types win and lose nothing") {
  const std::string deep(100'000, '[');
  const std::string answers[] = {
      "",
      "SSH-2.0-OpenSSH_9.2\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"succeeded\":true",
      "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
      "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n" +
          std::string(3 << 20, 'x'),
      "HTTP/1.1 200 OK\r\nX: " + std::string(1 << 20, 'y') + "\r\n\r\n",
      "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n\x1b[31mred\n",
      ok(""),
      ok("null"),
      ok("[]"),
      ok("\"succeeded\""),
      ok("{}"),
      ok("{\"succeeded\":\"true\"}"),
      ok("{\"succeeded\":1}"),
      ok("{\"responses\":[]}"),
      ok("{\"responses\":[null]}"),
      ok("{\"responses\":[{\"response_range\":null}]}"),
      ok("{\"responses\":[{\"response_range\":{\"kvs\":[{}]}}]}"),
      ok("{\"responses\":[{\"response_range\":{\"kvs\":[7]}}],\"kvs\":[7],\"header\":1}"),
      ok("{\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"!\",\"value\":\"===\"}]}}]}"),
      ok("{\"header\":{},\"kvs\":[{\"key\":\"\",\"value\":\"\"}]}"),
      ok("{\"header\":{},\"kvs\":{}}{"),
      ok(deep),
  };
  for (const std::string& answer : answers) {
    const Server server(answer);
    const auto arbiter = open_arbiter("etcd://" + server.endpoint(), node("a"));
    const Claim claim = (*arbiter)->claim(3);
    CHECK_MESSAGE(claim.verdict == ClaimVerdict::kUnreachable, answer.substr(0, 100));
    CHECK_FALSE(claim.detail.empty());
    CHECK(claim.detail.size() < 1000);
    CHECK(claim.detail.find('\x1b') == std::string::npos);
    CHECK_MESSAGE(!(*arbiter)->look().ok(), answer.substr(0, 100));
  }
}
