#include "tests/unit/arbiter/etcd_server.h"

#include <arpa/inet.h>
#include <csignal>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replay-engine/arbiter/http_post.h"

namespace us::replay::testing {
namespace {

std::string find_program() {
  const char* path = std::getenv("PATH");
  std::istringstream folders(std::string(path != nullptr ? path : "") + ":/usr/bin:/usr/sbin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (!folder.empty() && ::access((folder + "/etcd").c_str(), X_OK) == 0) return folder + "/etcd";
  }
  return {};
}

std::filesystem::path memory_folder() {
  return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path();
}

}  // namespace

EtcdServer::EtcdServer() : folder_(memory_folder()) {}

unsigned free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  US_CHECK(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  US_CHECK(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

std::unique_ptr<EtcdServer> EtcdServer::start() {
  const std::string program = find_program();
  if (program.empty()) {
    fmt::print(stderr, "SKIPPED: no etcd here (apt-get install etcd-server)\n");
    return nullptr;
  }
  auto server = std::make_unique<EtcdServer>();
  server->program_ = program;
  // Somebody else may take a port between its finding and its use.
  for (int attempt = 0; attempt < 5; ++attempt) {
    server->client_port_ = free_port();
    server->peer_port_ = free_port();
    if (server->launch()) return server;
    server->stop();
  }
  fmt::print(stderr, "{}\n", contents(server->folder_.file("log")));
  US_CHECK(false, "etcd does not start");
  return nullptr;
}

EtcdServer::~EtcdServer() { stop(); }

std::string EtcdServer::endpoint() const { return fmt::format("127.0.0.1:{}", client_port_); }

bool EtcdServer::serves() const {
  const auto answer = http_post({"127.0.0.1", std::to_string(client_port_)}, "/v3/kv/range",
                                R"({"key":"AA=="})", std::chrono::milliseconds(1000));
  return answer.ok() && answer->status == 200;
}

bool EtcdServer::launch() {
  const std::string client = "http://" + endpoint();
  const std::string peer = fmt::format("http://127.0.0.1:{}", peer_port_);
  const std::string log = folder_.file("log"), data = folder_.file("data");
  const std::string cluster = "default=" + peer;
  const char* const words[] = {program_.c_str(),
                               "--data-dir",
                               data.c_str(),
                               "--listen-client-urls",
                               client.c_str(),
                               "--advertise-client-urls",
                               client.c_str(),
                               "--listen-peer-urls",
                               peer.c_str(),
                               "--initial-advertise-peer-urls",
                               peer.c_str(),
                               "--initial-cluster",
                               cluster.c_str(),
                               "--heartbeat-interval",
                               "50",
                               "--election-timeout",
                               "500",
                               nullptr};
  pid_ = ::fork();
  US_CHECK(pid_ >= 0);
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that crashes leaves none behind
    const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(fd, STDOUT_FILENO);
    ::dup2(fd, STDERR_FILENO);
    ::execv(words[0], const_cast<char* const*>(words));
    ::_exit(127);
  }
  for (int i = 0; i < 600; ++i) {
    if (serves()) return true;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return false;
    }
    ::usleep(100'000);
  }
  return false;
}

void EtcdServer::stop() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void EtcdServer::restart() {
  stop();
  US_CHECK(launch());
}

void EtcdServer::freeze(bool frozen) {
  ::kill(pid_, frozen ? SIGSTOP : SIGCONT);
  if (!frozen) return;
  // Its threads stop one by one after kill() returned, and one that still runs would answer. The
  // parent is told once the last has stopped (waitpid(2), WUNTRACED).
  int status = 0;
  const bool stopped = ::waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status);
  US_CHECK(stopped, "etcd did not stop");
}

}  // namespace us::replay::testing
