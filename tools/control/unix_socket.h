// Unix stream sockets by path, and who owns what at the ends of them.
#pragma once

#include <chrono>
#include <string>

#include "base/result.h"

namespace us::tools {

// A file descriptor that closes itself; -1: none.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset(int fd = -1);

 private:
  int fd_;
};

// A listening socket, non-blocking, that nobody finds at `path` before it listens. A socket there
// that nobody listens at is replaced. The error is an errno: EADDRINUSE somebody listens there,
// EEXIST it is no socket, ENAMETOOLONG the system has no room for such a path.
Result<Fd, int> listen_unix(const std::string& path);
// Connected within `timeout`, non-blocking. The error is an errno.
Result<Fd, int> connect_unix(const std::string& path, std::chrono::milliseconds timeout);
// The other end's process runs as the same user as this one, or as root.
bool peer_is_ours(int fd);

}  // namespace us::tools
