#include "tools/control/events.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/control/reply.h"

namespace us::tools {
namespace {

// 2026-01-31T12:34:56.789Z
std::string now_as_text() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  const size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:03}Z", std::string_view(text, size), ms.count() % 1000);
}

// write(2) without SIGPIPE: a pipe whose reader has gone is no reason to end a VM.
ssize_t write_quietly(int fd, const std::string& bytes) {
  sigset_t pipe, before, pending;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  ::sigpending(&pending);
  ::pthread_sigmask(SIG_BLOCK, &pipe, &before);
  ssize_t n;
  do {
    n = ::write(fd, bytes.data(), bytes.size());
  } while (n < 0 && errno == EINTR);
  const int error = errno;
  // The signal that this write raised for its own thread is taken back.
  if (n < 0 && error == EPIPE && sigismember(&pending, SIGPIPE) == 0) {
    const timespec now{};
    ::sigtimedwait(&pipe, nullptr, &now);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return n;
}

}  // namespace

Result<std::unique_ptr<EventLog>> EventLog::open(const std::string& path,
                                                 const std::string& vm_name) {
  // Never waits: a pipe that nobody reads is an error here, and a full one loses lines later.
  const int fd =
      ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
  if (fd < 0) {
    return UserError{.id = "EVT-001",
                     .exit_code = ExitCode::kHostCannot,
                     .what = "cannot open " + path + " for events",
                     .seen = std::strerror(errno),
                     .needed = "a path that can be written, or a pipe that is read",
                     .mend = "correct the path or its permissions"};
  }
  return std::unique_ptr<EventLog>(new EventLog(fd, vm_name));
}

EventLog::EventLog(int fd, std::string vm_name) : fd_(fd), vm_name_(std::move(vm_name)) {}

EventLog::~EventLog() { ::close(fd_); }

void EventLog::write(const std::string& event, const std::string& detail) {
  const nlohmann::ordered_json json{{"schema", "understudy-event-1"},
                                    {"time", now_as_text()},
                                    {"vm", vm_name_},
                                    {"event", event},
                                    {"detail", detail}};
  const std::lock_guard lock(mutex_);
  // A line that was cut off ends before the next one begins.
  std::string line = cut_ ? "\n" : "";
  line += json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  const ssize_t n = write_quietly(fd_, line);
  if (n == static_cast<ssize_t>(line.size())) {
    cut_ = false;
    return;
  }
  if (n > 0) cut_ = line[static_cast<size_t>(n) - 1] != '\n';
  if (!complained_) {
    fmt::print(stderr,
               "understudy: an event could not be written, others may be lost as well: {}\n",
               n < 0 ? std::strerror(errno) : "no space left");
    complained_ = true;
  }
}

}  // namespace us::tools
