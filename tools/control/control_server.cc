#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <dirent.h>
#include <list>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "tools/control/control.h"
#include "tools/control/reply.h"
#include "tools/control/unix_socket.h"

namespace us::tools {
namespace {

constexpr size_t kClientsMax = 16;
constexpr int kServersMax = 16;  // of one VM's name in one process

UserError bad_request(const std::string& seen) {
  return {.id = "CTL-005",
          .exit_code = ExitCode::kUsage,
          .what = "the VM's process does not understand a control request",
          .seen = seen,
          .needed = "one line of at most 64 KiB: a JSON object with \"verb\"",
          .mend = "use the understudy that runs the VM"};
}

// One connection: lines in, replies out. While a reply is not taken, nothing more is read, so that
// a client holds at most one request and one reply.
class Client {
 public:
  explicit Client(Fd fd) : fd_(std::move(fd)) {}

  int fd() const { return fd_.get(); }
  short wants() const { return out_.empty() ? POLLIN : POLLOUT; }
  uint64_t last_used = 0;

  // Does what can be done without waiting. False: the connection is over.
  bool serve(const std::function<std::string(const std::string&)>& answer) {
    if (!flush()) return false;
    if (out_.empty() && !receive()) return false;
    while (out_.empty()) {
      const size_t end = in_.find('\n');
      if (end == std::string::npos && in_.size() <= kRequestMax) return !ended_;
      if (end > kRequestMax) {
        out_ = to_line(error_reply(bad_request("a line of more than 64 KiB"))) + "\n";
        ended_ = true;
        in_.clear();
      } else {
        out_ = answer(in_.substr(0, end)) + "\n";
        in_.erase(0, end + 1);
      }
      if (!flush()) return false;
    }
    return true;
  }

 private:
  bool receive() {
    if (ended_) return true;
    char bytes[16 * 1024];
    const ssize_t n = ::recv(fd_.get(), bytes, sizeof bytes, 0);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) ended_ = true;  // it may still wait for an answer
    in_.append(bytes, static_cast<size_t>(n));
    return true;
  }

  bool flush() {
    while (!out_.empty()) {
      const ssize_t n = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      out_.erase(0, static_cast<size_t>(n));
    }
    return true;
  }

  Fd fd_;
  std::string in_, out_;
  bool ended_ = false;  // nothing more is read
};

class Server final : public ControlServer {
 public:
  Server(std::string path, Fd listener, Fd wake, Handler handler)
      : path_(std::move(path)),
        handler_(std::move(handler)),
        listener_(std::move(listener)),
        wake_(std::move(wake)),
        thread_([this] { run(); }) {}

  ~Server() override {
    ::unlink(path_.c_str());
    quit_ = true;
    const uint64_t one = 1;
    // A counter of one cannot overflow: the write cannot fail.
    US_CHECK(::write(wake_.get(), &one, sizeof one) == sizeof one);
    thread_.join();
  }

  const std::string& path() const override { return path_; }

 private:
  void run();
  void accept_one();
  std::string answer(const std::string& line);

  const std::string path_;
  const Handler handler_;
  const Fd listener_, wake_;
  std::atomic<bool> quit_{false};
  std::list<Client> clients_;  // the thread's own, as all below
  uint64_t turn_ = 0;
  bool no_room_ = false;  // the process has no descriptor left
  std::thread thread_;
};

void Server::run() {
  const auto answering = [this](const std::string& line) { return answer(line); };
  std::vector<pollfd> polled;
  while (!quit_) {
    polled.clear();
    polled.push_back({.fd = wake_.get(), .events = POLLIN});
    polled.push_back({.fd = no_room_ ? -1 : listener_.get(), .events = POLLIN});
    for (const Client& c : clients_) polled.push_back({.fd = c.fd(), .events = c.wants()});
    ::poll(polled.data(), polled.size(), no_room_ ? 100 : -1);
    no_room_ = false;
    ++turn_;
    size_t at = 2;
    for (auto it = clients_.begin(); it != clients_.end(); ++at) {
      const bool active = polled[at].revents != 0;
      if (active) it->last_used = turn_;
      it = active && !it->serve(answering) ? clients_.erase(it) : std::next(it);
    }
    if ((polled[1].revents & POLLIN) != 0) accept_one();
  }
}

void Server::accept_one() {
  Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd) {
    no_room_ = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
    return;
  }
  if (!peer_is_ours(fd.get())) return;
  // Nobody keeps others out by opening connections and saying nothing.
  if (clients_.size() >= kClientsMax) {
    auto idlest = clients_.begin();
    for (auto it = clients_.begin(); it != clients_.end(); ++it) {
      if (it->last_used < idlest->last_used) idlest = it;
    }
    clients_.erase(idlest);
  }
  clients_.emplace_back(std::move(fd)).last_used = turn_;
}

std::string Server::answer(const std::string& line) {
  const auto request = nlohmann::json::parse(line, nullptr, false);
  if (request.is_discarded() || !request.is_object())
    return to_line(error_reply(bad_request("no JSON object")));
  const auto verb = request.find("verb");
  if (verb == request.end() || !verb->is_string())
    return to_line(error_reply(bad_request("no \"verb\"")));
  try {
    const auto reply = handler_(request);
    return to_line(reply.ok() ? *reply : error_reply(reply.error()));
  } catch (const nlohmann::json::exception& e) {  // a member of another type than the handler reads
    return to_line(error_reply(bad_request(e.what())));
  }
}

// Removes the sockets of processes that are gone without having done so themselves.
void remove_stale(const std::string& folder) {
  DIR* dir = ::opendir(folder.c_str());
  if (dir == nullptr) return;
  while (const dirent* entry = ::readdir(dir)) {
    const auto pid = pid_in_socket_name(entry->d_name, "");
    if (!pid || ::kill(*pid, 0) == 0 || errno != ESRCH) continue;
    // The process may live in another container's numbering: ask the socket, too.
    const std::string path = folder + "/" + entry->d_name;
    const auto connected = connect_unix(path, std::chrono::milliseconds(200));
    if (!connected.ok() && connected.error() == ECONNREFUSED) ::unlink(path.c_str());
  }
  ::closedir(dir);
}

UserError cannot_listen(const std::string& path, int error) {
  return {.id = "CTL-004",
          .exit_code = ExitCode::kHostCannot,
          .what = "cannot make the control socket " + path,
          .seen = std::strerror(error),
          .needed = "a path of fewer than 96 bytes in a folder that can be written",
          .mend = "set UNDERSTUDY_RUNTIME_DIR to another folder"};
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::string& vm_name,
                                                            Handler handler) {
  if (const Status named = check_control_name(vm_name); !named.ok()) return named.error();
  const auto folder = runtime_folder();
  if (!folder.ok()) return folder.error();
  remove_stale(*folder);
  std::string path;
  Result<Fd, int> listener = EADDRINUSE;
  for (int i = 0; i < kServersMax && !listener.ok() && listener.error() == EADDRINUSE; ++i) {
    path = fmt::format("{}/{}.{}{}.sock", *folder, vm_name, ::getpid(),
                       i == 0 ? "" : fmt::format("-{}", i));
    listener = listen_unix(path);
  }
  if (!listener.ok()) return cannot_listen(path, listener.error());
  Fd wake(::eventfd(0, EFD_CLOEXEC));
  if (!wake) return cannot_listen(path, errno);
  return std::unique_ptr<ControlServer>(std::make_unique<Server>(
      path, std::move(listener).value(), std::move(wake), std::move(handler)));
}

}  // namespace us::tools
