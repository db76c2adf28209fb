// A network that can break: passes TCP connections on, and holds bytes back on request. Stop the
// whole process (SIGSTOP) for a partition both ways.
//   relay LISTEN_PORT TARGET_PORT      on the loopback
// SIGUSR1: hold what goes to the target; SIGUSR2: hold what comes from it; SIGHUP: hold nothing.
#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

namespace {

volatile std::sig_atomic_t held[2] = {0, 0};  // to the target, from it

sockaddr_in local(int port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<uint16_t>(port));
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

struct Pair {
  int fd[2];  // who connected, the target
};

// False: the connection is over.
bool pass(int from, int to) {
  char buffer[65536];
  const ssize_t n = recv(from, buffer, sizeof buffer, 0);
  if (n <= 0) return n < 0 && errno == EINTR;
  for (ssize_t at = 0; at < n;) {
    const ssize_t sent = send(to, buffer + at, static_cast<size_t>(n - at), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent;
  }
  return true;
}

void accept_one(int listener, int target, std::list<Pair>& pairs) {
  const int in = accept(listener, nullptr, nullptr);
  if (in < 0) return;
  const int out = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in to = local(target);
  if (connect(out, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    close(in);
    close(out);
    return;
  }
  const int one = 1;
  for (const int fd : {in, out}) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  pairs.push_back({{in, out}});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::signal(SIGUSR1, [](int) { held[0] = 1; });
  std::signal(SIGUSR2, [](int) { held[1] = 1; });
  std::signal(SIGHUP, [](int) {
    held[0] = 0;
    held[1] = 0;
  });
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const sockaddr_in at = local(std::atoi(argv[1]));
  if (bind(listener, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      listen(listener, 8) != 0) {
    std::perror("relay");
    return 1;
  }
  std::list<Pair> pairs;
  for (;;) {
    std::vector<pollfd> fds{{listener, POLLIN, 0}};
    for (const Pair& p : pairs)
      for (int side = 0; side < 2; ++side)
        fds.push_back({held[side] != 0 ? -1 : p.fd[side], POLLIN, 0});
    if (poll(fds.data(), fds.size(), 50) <= 0) continue;
    size_t i = 1;
    for (auto p = pairs.begin(); p != pairs.end();) {
      bool good = true;
      for (int side = 0; side < 2; ++side, ++i)
        if (fds[i].revents != 0 && held[side] == 0)
          good = pass(p->fd[side], p->fd[1 - side]) && good;
      if (good) {
        ++p;
        continue;
      }
      close(p->fd[0]);
      close(p->fd[1]);
      p = pairs.erase(p);
    }
    if (fds[0].revents != 0) accept_one(listener, std::atoi(argv[2]), pairs);
  }
}
