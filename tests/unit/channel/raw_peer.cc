#include "raw_peer.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pair.h"

namespace us::log {
namespace {

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int new_socket() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(fd >= 0);
  const timeval patience{std::chrono::seconds(kPatience).count(), 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  return fd;
}

}  // namespace

RawPeer::RawPeer(uint16_t port) : fd_(new_socket()) {
  const sockaddr_in address = loopback(port);
  REQUIRE(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
}

bool RawPeer::say(ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return true;
}

bool RawPeer::say(std::string_view text) {
  return say(ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

Bytes RawPeer::hear() {
  Bytes heard;
  uint8_t buffer[4096];
  for (;;) {
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n < 0 && errno == ECONNRESET) return heard;
    REQUIRE(n >= 0);
    if (n == 0) return heard;
    heard.insert(heard.end(), buffer, buffer + n);
  }
}

Bytes RawPeer::hear_some() {
  Bytes heard(64 * 1024);
  const ssize_t n = ::recv(fd_, heard.data(), heard.size(), 0);
  REQUIRE(n > 0);
  heard.resize(static_cast<size_t>(n));
  return heard;
}

void RawPeer::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

RawListener::RawListener() : fd_(new_socket()) {
  sockaddr_in address = loopback(0);
  REQUIRE(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(fd_, 16) == 0);
  socklen_t size = sizeof address;
  REQUIRE(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  port_ = ntohs(address.sin_port);
}

RawListener::~RawListener() { close(); }

RawPeer RawListener::accept() {
  const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
  REQUIRE(fd >= 0);
  return RawPeer(fd);
}

void RawListener::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

}  // namespace us::log
