#include "hv/world/console.h"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <string>

namespace us::hv {

namespace {

constexpr uint8_t kEscape = 1;  // Ctrl-A
constexpr size_t kQueueMax = 1 << 20;
constexpr size_t kReadAtOnce = 4096;
constexpr size_t kWriteAtOnce = 64 << 10;

// False: the other end is gone.
bool write_fully(int fd, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n > 0) {
      bytes = bytes.subspan(static_cast<size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {
      pollfd ready{fd, POLLOUT, 0};
      ::poll(&ready, 1, -1);
    } else if (n < 0 && errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace

KeyFilter::Action KeyFilter::feed(ByteSpan typed, Bytes& out, size_t& taken) {
  for (taken = 0; taken < typed.size();) {
    const uint8_t key = typed[taken++];
    if (!escaped_) {
      escaped_ = key == kEscape;
      if (!escaped_) out.push_back(key);
      continue;
    }
    escaped_ = false;
    if (key == 'x') return Action::kQuit;
    if (key == 'p') return Action::kPowerButton;
    out.push_back(kEscape);
    if (key != kEscape && key != 'a') out.push_back(key);
  }
  return Action::kNone;
}

ConsoleBackend::ConsoleBackend(const ConsoleConfig& config, ConsoleHandlers handlers)
    : config_(config), handlers_(std::move(handlers)) {
  enter_raw_mode();
  writer_ = std::thread([this] {
    begin_thread("us-console-out");
    write_text();
  });
  reader_ = std::thread([this] {
    begin_thread("us-console-in");
    read_keys();
  });
}

ConsoleBackend::~ConsoleBackend() { stop(); }

void ConsoleBackend::enter_raw_mode() {
  if (::isatty(config_.in_fd) == 0 || ::tcgetattr(config_.in_fd, &saved_) != 0) return;
  termios raw = saved_;
  ::cfmakeraw(&raw);
  raw.c_oflag = saved_.c_oflag;  // our own messages keep their line ends
  if (::tcsetattr(config_.in_fd, TCSANOW, &raw) != 0) return;
  raw_ = true;
  dump_token_ = add_state_dump([this] {
    ::tcsetattr(config_.in_fd, TCSANOW, &saved_);
    return std::string();
  });
}

void ConsoleBackend::restore_terminal() {
  if (!raw_) return;
  raw_ = false;
  ::tcsetattr(config_.in_fd, TCSADRAIN, &saved_);
  remove_state_dump(dump_token_);
}

void ConsoleBackend::write(ByteSpan bytes) {
  if (bytes.empty()) return;
  {
    std::unique_lock lock(mutex_);
    if (config_.write_waits)
      changed_.wait(lock, [this] { return end_writer_ || waiting_ < kQueueMax; });
    if (end_writer_) return;
    waiting_ += bytes.size();
    queue_.insert(queue_.end(), bytes.begin(), bytes.end());
  }
  changed_.notify_all();
}

bool ConsoleBackend::full() const {
  const std::lock_guard lock(mutex_);
  return waiting_ >= kQueueMax;
}

void ConsoleBackend::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return waiting_ == 0; });
}

void ConsoleBackend::stop() {
  stopped_ = true;
  wake_.signal();
  if (reader_.joinable()) reader_.join();
  {
    const std::lock_guard lock(mutex_);
    end_writer_ = true;
  }
  changed_.notify_all();
  if (writer_.joinable()) writer_.join();
  restore_terminal();
}

void ConsoleBackend::write_text() {
  bool gone = false;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return end_writer_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Bytes bytes;
    bytes.swap(queue_);
    for (ByteSpan left = bytes; !left.empty();) {
      const ByteSpan now = left.first(std::min(left.size(), kWriteAtOnce));
      left = left.subspan(now.size());
      lock.unlock();
      if (!gone) gone = !write_fully(config_.out_fd, now);
      lock.lock();
      waiting_ -= now.size();
      changed_.notify_all();
    }
  }
}

bool ConsoleBackend::handle_typed(ByteSpan typed) {
  if (!raw_) {
    handlers_.typed(Bytes(typed.begin(), typed.end()));
    return true;
  }
  while (!typed.empty()) {
    Bytes out;
    size_t taken = 0;
    const KeyFilter::Action action = filter_.feed(typed, out, taken);
    typed = typed.subspan(taken);
    if (!out.empty()) handlers_.typed(std::move(out));
    if (action == KeyFilter::Action::kPowerButton) handlers_.power_button();
    if (action == KeyFilter::Action::kQuit) {
      handlers_.quit();
      return false;
    }
  }
  return true;
}

void ConsoleBackend::read_keys() {
  uint8_t buffer[kReadAtOnce];
  while (!stopped_) {
    pollfd polls[2] = {{config_.in_fd, POLLIN, 0}, {wake_.fd(), POLLIN, 0}};
    if (::poll(polls, 2, -1) < 0) continue;
    if (stopped_ || polls[0].revents == 0) continue;
    const ssize_t n = ::read(config_.in_fd, buffer, sizeof buffer);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return;  // end of input: the guest's line just stays quiet
    if (!handle_typed(ByteSpan(buffer, static_cast<size_t>(n)))) return;
  }
}

}  // namespace us::hv
