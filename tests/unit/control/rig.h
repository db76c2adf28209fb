// A runtime folder of a test's own, and clients that say what no `understudy` would.
#pragma once

#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <sstream>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "tools/control/unix_socket.h"

namespace us::tools::testing {

// UNDERSTUDY_RUNTIME_DIR points to it for as long as it lives.
class RuntimeFolder {
 public:
  RuntimeFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "us-control-XXXXXX").string();
    US_CHECK(::mkdtemp(name.data()) != nullptr);
    path_ = name;
    ::setenv("UNDERSTUDY_RUNTIME_DIR", path_.c_str(), 1);
  }
  ~RuntimeFolder() {
    ::unsetenv("UNDERSTUDY_RUNTIME_DIR");
    std::filesystem::remove_all(path_);
  }
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  size_t files() const {
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) n += entry.path() != "";
    return n;
  }

 private:
  std::string path_;
};

inline std::string contents(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// Connects, or the test is over.
inline Fd connected(const std::string& path) {
  auto fd = connect_unix(path, std::chrono::seconds(10));
  US_CHECK(fd.ok());
  return std::move(fd).value();
}

// Sends all, for as long as the other end takes it; false: it closed.
inline bool send_all(const Fd& fd, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::send(fd.get(), bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n > 0) {
      done += static_cast<size_t>(n);
      continue;
    }
    if (errno != EAGAIN) return false;
    pollfd polled{.fd = fd.get(), .events = POLLOUT};
    ::poll(&polled, 1, 10'000);
  }
  return true;
}

// One line without its end, or what came before the other end closed.
inline std::string receive_line(const Fd& fd) {
  std::string in;
  while (true) {
    char c = 0;
    const ssize_t n = ::recv(fd.get(), &c, 1, 0);
    if (n == 1 && c == '\n') return in;
    if (n == 1) {
      in += c;
      continue;
    }
    if (n == 0 || errno != EAGAIN) return in;
    pollfd polled{.fd = fd.get(), .events = POLLIN};
    US_CHECK(::poll(&polled, 1, 60'000) == 1, "nothing came in a minute");
  }
}
inline std::string receive_all(const Fd& fd) {
  std::string all;
  while (true) {
    char bytes[4096];
    const ssize_t n = ::recv(fd.get(), bytes, sizeof bytes, 0);
    if (n > 0) {
      all.append(bytes, static_cast<size_t>(n));
      continue;
    }
    if (n == 0 || errno != EAGAIN) return all;
    pollfd polled{.fd = fd.get(), .events = POLLIN};
    US_CHECK(::poll(&polled, 1, 60'000) == 1, "nothing came in a minute");
  }
}

}  // namespace us::tools::testing
