// A client that counts: writes numbered keys to a Redis server over one TCP connection, one after
// the other, and afterwards, over that very connection, looks how many are there. Says, in JSON,
// how many were acknowledged, how many were found with their value, and the longest wait for an
// answer.
//   redis_client HOST PORT SECONDS [--progress FILE]
// SIGUSR1 ends the writing early.
// Exit 0: every acknowledged write was found. RESP2: https://redis.io/docs/reference/protocol-spec.
#include <arpa/inet.h>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <netinet/tcp.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "redis_client: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

class Connection {
 public:
  Connection(const char* host, int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1) fail("bad address");
    if (connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) fail("cannot connect");
    const int one = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    const timeval patience{60, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Connection() { close(fd_); }

  void send(const std::string& text) {
    for (size_t at = 0; at < text.size();) {
      const ssize_t n = ::send(fd_, text.data() + at, text.size() - at, MSG_NOSIGNAL);
      if (n <= 0) fail("the connection broke while writing");
      at += static_cast<size_t>(n);
    }
  }
  std::string line() {
    for (;;) {
      const size_t end = buffer_.find("\r\n");
      if (end != std::string::npos) {
        std::string found = buffer_.substr(0, end);
        buffer_.erase(0, end + 2);
        return found;
      }
      char piece[4096];
      const ssize_t n = recv(fd_, piece, sizeof piece, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("the connection broke while reading");
      buffer_.append(piece, static_cast<size_t>(n));
    }
  }

 private:
  int fd_;
  std::string buffer_;
};

volatile std::sig_atomic_t enough = 0;

std::string command(const std::vector<std::string>& words) {
  std::string text = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& w : words) text += "$" + std::to_string(w.size()) + "\r\n" + w + "\r\n";
  return text;
}

std::string value_of(uint64_t n) { return "value-" + std::to_string(n * 2654435761u); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: redis_client HOST PORT SECONDS [--progress FILE]\n");
    return 2;
  }
  const char* progress = argc == 6 && std::strcmp(argv[4], "--progress") == 0 ? argv[5] : nullptr;
  struct sigaction on_enough {};
  on_enough.sa_handler = [](int) { enough = 1; };
  on_enough.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &on_enough, nullptr);
  Connection redis(argv[1], std::atoi(argv[2]));
  redis.send(command({"PING"}));
  if (redis.line() != "+PONG") fail("no Redis there");
  const auto end = Clock::now() + std::chrono::milliseconds(std::atol(argv[3]) * 1000);
  uint64_t acknowledged = 0;
  Clock::duration longest{0};
  while (Clock::now() < end && enough == 0) {
    const auto asked = Clock::now();
    redis.send(command({"SET", "key-" + std::to_string(acknowledged), value_of(acknowledged)}));
    const std::string answer = redis.line();
    if (answer != "+OK") fail("the server said " + answer);
    longest = std::max(longest, Clock::now() - asked);
    ++acknowledged;
    if (progress != nullptr && acknowledged % 10 == 0)
      std::ofstream(progress) << acknowledged << "\n";
  }
  uint64_t found = 0;
  for (uint64_t n = 0; n < acknowledged; ++n) {
    redis.send(command({"GET", "key-" + std::to_string(n)}));
    if (redis.line() == "$-1") continue;
    if (redis.line() == value_of(n)) ++found;
  }
  redis.send(command({"SHUTDOWN", "NOSAVE"}));
  std::printf(
      "{\"acknowledged\": %llu, \"found\": %llu, \"longest_wait_ms\": %.1f, "
      "\"connections\": 1}\n",
      static_cast<unsigned long long>(acknowledged), static_cast<unsigned long long>(found),
      std::chrono::duration<double, std::milli>(longest).count());
  return found == acknowledged ? 0 : 1;
}
