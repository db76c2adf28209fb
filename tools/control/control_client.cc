#include <algorithm>
#include <cerrno>
#include <cstring>
#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tools/control/control.h"
#include "tools/control/reply.h"
#include "tools/control/unix_socket.h"

namespace us::tools {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

// A process that is there answers `status` at once; the other verbs may have work to wait for.
constexpr std::chrono::seconds kStatusPatience{5};
constexpr std::chrono::seconds kVerbPatience{60};

UserError no_such_vm(const std::string& vm_name, const std::string& role,
                     const std::string& folder) {
  return {
      .id = "CTL-001",
      .exit_code = ExitCode::kHostCannot,
      .what = fmt::format("cannot reach the VM {}{}", vm_name, role.empty() ? "" : "'s " + role),
      .seen = "no process of that name has a control socket in " + folder,
      .needed = "a VM that `understudy protect` or `understudy standby` runs on this host",
      .mend = "correct the name, ask on the other host, or as the user who runs it"};
}

UserError no_answer(const std::string& path, const std::string& seen) {
  return {.id = "CTL-002",
          .exit_code = ExitCode::kHostCannot,
          .what = "the VM's process does not answer at " + path,
          .seen = seen,
          .needed = "a process that runs and is not stopped",
          .mend = "look at the process whose number the socket's name ends in"};
}

// Waits for `events`; false: not before the deadline.
bool wait_for(int fd, short events, Clock::time_point deadline) {
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd polled{.fd = fd, .events = events};
    const int n = ::poll(&polled, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (n > 0) return true;
    if (n == 0) return false;
    if (errno != EINTR) return false;
  }
}

bool send_all(int fd, const std::string& bytes, Clock::time_point deadline) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (n > 0) {
      done += static_cast<size_t>(n);
    } else if ((errno != EAGAIN && errno != EINTR) || !wait_for(fd, POLLOUT, deadline)) {
      return false;
    }
  }
  return true;
}

// The reply's line; the error says what was seen instead.
Result<std::string, UserError> receive_line(int fd, const std::string& path,
                                            Clock::time_point deadline) {
  std::string in;
  while (true) {
    char bytes[16 * 1024];
    const ssize_t n = ::recv(fd, bytes, sizeof bytes, 0);
    if (n == 0) return no_answer(path, "it closed the connection");
    if (n < 0 && errno != EAGAIN && errno != EINTR) return no_answer(path, std::strerror(errno));
    if (n < 0) {
      if (!wait_for(fd, POLLIN, deadline)) return no_answer(path, "no reply in time");
      continue;
    }
    in.append(bytes, static_cast<size_t>(n));
    if (const size_t end = in.find('\n'); end != std::string::npos) return in.substr(0, end);
    if (in.size() > kReplyMax) return no_answer(path, "a reply of more than 1 MiB");
  }
}

// One exchange. Nothing: nobody listens there any more.
std::optional<Result<json>> exchange(const std::string& path, const json& request,
                                     std::chrono::seconds patience) {
  const auto deadline = Clock::now() + patience;
  const auto fd = connect_unix(path, kStatusPatience);
  if (!fd.ok()) {
    if (fd.error() == ECONNREFUSED || fd.error() == ENOENT) return std::nullopt;
    return no_answer(path, std::strerror(fd.error()));
  }
  if (!send_all(fd->get(), to_line(request) + "\n", deadline))
    return no_answer(path, "it does not take the request");
  const auto line = receive_line(fd->get(), path, deadline);
  if (!line.ok()) return line.error();
  json reply = json::parse(*line, nullptr, false);
  if (reply.is_discarded()) return no_answer(path, "a reply that is no JSON");
  if (const auto error = error_in(reply)) return *error;
  return reply;
}

std::vector<std::string> sockets_of(const std::string& folder, const std::string& vm_name) {
  std::vector<std::string> out;
  DIR* dir = ::opendir(folder.c_str());
  if (dir == nullptr) return out;
  while (const dirent* entry = ::readdir(dir)) {
    if (pid_in_socket_name(entry->d_name, vm_name)) out.push_back(folder + "/" + entry->d_name);
  }
  ::closedir(dir);
  std::sort(out.begin(), out.end());
  return out;
}

struct Side {
  std::string path, role, state;
  json status;
};

// How well a side fits; the least is taken. A halted one is only there to say so.
int rank(const Side& side) {
  if (side.state == "halted") return 2;
  return side.role == "primary" ? 0 : 1;
}

}  // namespace

Result<json> control_request(const std::string& vm_name, const std::string& role,
                             const json& request) {
  if (const Status named = check_control_name(vm_name); !named.ok()) return named.error();
  const auto folder = runtime_folder();
  if (!folder.ok()) return folder.error();
  std::vector<Side> sides;
  std::optional<UserError> trouble;  // of a side that is there and does not say who it is
  for (const std::string& path : sockets_of(*folder, vm_name)) {
    const auto reply = exchange(path, {{"verb", "status"}}, kStatusPatience);
    if (!reply) continue;
    if (!reply->ok()) {
      trouble = reply->error();
      continue;
    }
    const json& status = **reply;
    const auto text = [&](const char* key) {
      return status.is_object() && status.contains(key) && status[key].is_string()
                 ? status[key].get<std::string>()
                 : std::string();
    };
    Side side{path, text("role"), text("state"), status};
    if (role.empty() || side.role == role) sides.push_back(std::move(side));
  }
  if (sides.empty()) return trouble ? *trouble : no_such_vm(vm_name, role, *folder);
  const Side& best = *std::min_element(
      sides.begin(), sides.end(), [](const Side& a, const Side& b) { return rank(a) < rank(b); });
  if (request.value("verb", "") == "status") return best.status;
  const auto reply = exchange(best.path, request, kVerbPatience);
  return reply ? *reply : no_such_vm(vm_name, role, *folder);
}

}  // namespace us::tools
