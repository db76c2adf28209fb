#include <arpa/inet.h>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "base/check.h"
#include "logchannel/channel/tls.h"
#include "measure.h"

namespace us::log::bench {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using TlsStream = asio::ssl::stream<tcp::socket>;

constexpr size_t kReadBytes = 256 * 1024;

// The same TLS as the channel's: cipher, key, version.
asio::ssl::context same_context() {
  Credentials credentials;
  credentials.key = Bytes(32, 1);
  static const auto context = *TlsContext::make(credentials);
  SSL_CTX_up_ref(context->get());
  return asio::ssl::context(context->get());
}

// Reads until `total` bytes came.
template <class Stream>
class Drain {
 public:
  Drain(Stream& stream, size_t total) : stream_(stream), left_(total) {}
  void start() {
    stream_.async_read_some(asio::buffer(buffer_), [this](auto error, size_t n) {
      US_CHECK(!error && n <= left_, "{}", error.message());
      left_ -= n;
      if (left_ != 0) start();
    });
  }

 private:
  Stream& stream_;
  size_t left_;
  std::vector<uint8_t> buffer_ = std::vector<uint8_t>(kReadBytes);
};

struct Sockets {
  asio::io_context sender_io{1}, receiver_io{1};
  tcp::socket sender{sender_io}, receiver{receiver_io};
  Sockets() {
    tcp::acceptor acceptor(receiver_io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    sender.connect(acceptor.local_endpoint());
    acceptor.accept(receiver);
    sender.set_option(tcp::no_delay(true));
    receiver.set_option(tcp::no_delay(true));
  }
};

template <class Stream>
Seconds pump(Stream& sender, Stream& receiver, asio::io_context& receiver_io, size_t total,
             size_t write_bytes) {
  const std::vector<uint8_t> data(write_bytes, 0x5a);
  Drain drain(receiver, total);
  drain.start();
  const auto start = std::chrono::steady_clock::now();
  std::thread thread([&] { receiver_io.run(); });
  for (size_t sent = 0; sent < total; sent += write_bytes) asio::write(sender, asio::buffer(data));
  thread.join();
  return std::chrono::steady_clock::now() - start;
}

}  // namespace

Seconds plain_throughput(bool tls, size_t total, size_t write_bytes) {
  Sockets sockets;
  if (!tls) return pump(sockets.sender, sockets.receiver, sockets.receiver_io, total, write_bytes);
  auto context = same_context();
  TlsStream sender(std::move(sockets.sender), context);
  TlsStream receiver(std::move(sockets.receiver), context);
  std::thread shaking([&] { receiver.handshake(TlsStream::server); });
  sender.handshake(TlsStream::client);
  shaking.join();
  return pump(sender, receiver, sockets.receiver_io, total, write_bytes);
}

std::vector<Micros> plain_pings() {
  Sockets sockets;
  const int near = sockets.sender.native_handle(), far = sockets.receiver.native_handle();
  std::thread echo([far] {
    char buffer[4096];
    for (size_t i = 0; i < kPingsAtOnce; ++i) {
      for (size_t got = 0; got < kPingBytes;) {
        const ssize_t n = ::recv(far, buffer, sizeof buffer, 0);
        US_CHECK(n > 0);
        got += static_cast<size_t>(n);
      }
      US_CHECK(::send(far, buffer, kPongBytes, MSG_NOSIGNAL) == kPongBytes);
    }
  });
  std::vector<Micros> times;
  char buffer[4096] = {};
  while (times.size() < kPingsAtOnce) {
    const auto start = std::chrono::steady_clock::now();
    US_CHECK(::send(near, buffer, kPingBytes, MSG_NOSIGNAL) == kPingBytes);
    for (size_t got = 0; got < kPongBytes;) {
      const ssize_t n = ::recv(near, buffer, sizeof buffer, 0);
      US_CHECK(n > 0);
      got += static_cast<size_t>(n);
    }
    times.push_back(std::chrono::steady_clock::now() - start);
  }
  echo.join();
  return times;
}

}  // namespace us::log::bench
