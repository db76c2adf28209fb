// A plain TCP peer of the tests, for what no Link would do.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace us::log {

class RawPeer {
 public:
  explicit RawPeer(uint16_t port);       // connects over loopback
  explicit RawPeer(int fd) : fd_(fd) {}  // of RawListener
  RawPeer(RawPeer&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;
  RawPeer& operator=(RawPeer&&) = delete;
  ~RawPeer() { close(); }

  // False when the other side is gone.
  bool say(ByteSpan bytes);
  bool say(std::string_view text);
  // What comes until the other side closes. Fails the test when it does not.
  Bytes hear();
  // What has come, at least one byte.
  Bytes hear_some();
  void close();

 private:
  int fd_ = -1;
};

class RawListener {
 public:
  RawListener();  // a free port of the loopback
  ~RawListener();
  RawListener(const RawListener&) = delete;
  RawListener& operator=(const RawListener&) = delete;
  uint16_t port() const { return port_; }
  RawPeer accept();
  void close();

 private:
  int fd_ = -1;
  uint16_t port_ = 0;
};

}  // namespace us::log
