// A client that counts: writes numbered keys to a Redis server over one TCP connection, one after
// the other, and afterwards, over that very connection, looks how many are there. Says, in JSON,
// how many were acknowledged, how many were found with their value, and the longest wait for an
// answer.
//   redis_client HOST PORT SECONDS [--progress FILE] [--pipeline N]
// N writes are sent before their answers are read. SIGUSR1 ends the writing early.
// Exit 0: every acknowledged write was found. RESP2: https://redis.io/docs/reference/protocol-spec.
#include <algorithm>
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

struct Options {
  const char* host = nullptr;
  int port = 0;
  long seconds = 0;
  const char* progress = nullptr;
  uint64_t pipeline = 1;
};

Options parse(int argc, char** argv) {
  Options o;
  if (argc < 4) {
    std::fprintf(stderr,
                 "usage: redis_client HOST PORT SECONDS [--progress FILE] [--pipeline N]\n");
    std::exit(2);
  }
  o.host = argv[1];
  o.port = std::atoi(argv[2]);
  o.seconds = std::atol(argv[3]);
  for (int i = 4; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--progress") == 0) o.progress = argv[i + 1];
    if (std::strcmp(argv[i], "--pipeline") == 0)
      o.pipeline = std::strtoull(argv[i + 1], nullptr, 10);
  }
  return o;
}

struct Written {
  uint64_t acknowledged = 0;
  std::vector<double> waits_ms;  // of each batch
  double seconds = 0;
};

Written write_until(Connection& redis, const Options& o) {
  Written w;
  const auto begin = Clock::now();
  const auto end = begin + std::chrono::seconds(o.seconds);
  while (Clock::now() < end && enough == 0) {
    const auto asked = Clock::now();
    std::string batch;
    for (uint64_t i = 0; i < o.pipeline; ++i)
      batch += command(
          {"SET", "key-" + std::to_string(w.acknowledged + i), value_of(w.acknowledged + i)});
    redis.send(batch);
    for (uint64_t i = 0; i < o.pipeline; ++i) {
      const std::string answer = redis.line();
      if (answer != "+OK") fail("the server said " + answer);
      ++w.acknowledged;
    }
    w.waits_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - asked).count());
    if (o.progress != nullptr && w.acknowledged % 10 < o.pipeline)
      std::ofstream(o.progress) << w.acknowledged << "\n";
  }
  w.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  std::sort(w.waits_ms.begin(), w.waits_ms.end());
  return w;
}

uint64_t count_found(Connection& redis, uint64_t keys) {
  uint64_t found = 0;
  for (uint64_t n = 0; n < keys; ++n) {
    redis.send(command({"GET", "key-" + std::to_string(n)}));
    if (redis.line() == "$-1") continue;
    if (redis.line() == value_of(n)) ++found;
  }
  return found;
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = parse(argc, argv);
  struct sigaction on_enough {};
  on_enough.sa_handler = [](int) { enough = 1; };
  on_enough.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &on_enough, nullptr);
  Connection redis(o.host, o.port);
  redis.send(command({"PING"}));
  if (redis.line() != "+PONG") fail("no Redis there");
  const Written w = write_until(redis, o);
  const auto looked = Clock::now();
  const uint64_t found = count_found(redis, w.acknowledged);
  const double look_seconds = std::chrono::duration<double>(Clock::now() - looked).count();
  redis.send(command({"SHUTDOWN", "NOSAVE"}));
  const auto at = [&](double part) {
    return w.waits_ms.empty()
               ? 0
               : w.waits_ms[static_cast<size_t>(part * static_cast<double>(w.waits_ms.size() - 1))];
  };
  std::printf(
      "{\"acknowledged\": %llu, \"found\": %llu, \"longest_wait_ms\": %.1f, \"connections\": 1, "
      "\"sets_per_second\": %.1f, \"gets_per_second\": %.1f, \"wait_p50_ms\": %.3f, "
      "\"wait_p99_ms\": %.3f}\n",
      static_cast<unsigned long long>(w.acknowledged), static_cast<unsigned long long>(found),
      at(1), static_cast<double>(w.acknowledged) / w.seconds,
      static_cast<double>(w.acknowledged) / look_seconds, at(0.5), at(0.99));
  return found == w.acknowledged ? 0 : 1;
}
