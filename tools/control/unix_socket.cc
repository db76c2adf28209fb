#include "tools/control/unix_socket.h"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace us::tools {
namespace {

bool fill(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return true;
}

int connect_to(int fd, const sockaddr_un& address) {
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0
                                                                                         : errno;
}

// What stands in the way of a socket at `path`: 0 nothing, or nobody any more.
int way_is_clear(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return errno == ENOENT ? 0 : errno;
  if (!S_ISSOCK(info.st_mode)) return EEXIST;
  const auto connected = connect_unix(path, std::chrono::milliseconds(1000));
  if (connected.ok()) return EADDRINUSE;
  // Anything but a refusal can mean a process that is only busy.
  return connected.error() == ECONNREFUSED ? 0 : EADDRINUSE;
}

}  // namespace

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<Fd, int> listen_unix(const std::string& path) {
  const std::string early = fmt::format("{}.{}", path, ::getpid());
  sockaddr_un address;
  if (!fill(early, address)) return ENAMETOOLONG;
  if (const int error = way_is_clear(path); error != 0) return error;
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return errno;
  ::unlink(early.c_str());
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return errno;
  int error = ::listen(fd.get(), 16) == 0 ? 0 : errno;
  if (error == 0 && ::rename(early.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return fd;
  ::unlink(early.c_str());
  return error;
}

Result<Fd, int> connect_unix(const std::string& path, std::chrono::milliseconds timeout) {
  sockaddr_un address;
  if (!fill(path, address)) return ENAMETOOLONG;
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return errno;
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const int error = connect_to(fd.get(), address);
    if (error == 0) return fd;
    // The queue of a busy process is full: there is nothing to poll for (unix(7), EAGAIN).
    if (error != EAGAIN && error != EINTR) return error;
    if (std::chrono::steady_clock::now() >= deadline) return ETIMEDOUT;
    ::poll(nullptr, 0, 10);
  }
}

bool peer_is_ours(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

}  // namespace us::tools
