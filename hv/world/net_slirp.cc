// User-mode networking by libslirp: 10.0.2.0/24 with gateway .2, name server .3 and DHCP from .15.
#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <fmt/format.h>
#include <libslirp.h>
#include <mutex>
#include <poll.h>
#include <thread>

#include "hv/world/net.h"
#include "hv/world/thread_support.h"

namespace us::hv {

namespace {

constexpr size_t kQueueMax = 4096;  // frames waiting for slirp's thread
constexpr uint32_t kLongestWaitMs = 1000;
constexpr int64_t kNever = -1;

in_addr address(const char* text) {
  in_addr result{};
  US_CHECK(::inet_pton(AF_INET, text, &result) == 1);
  return result;
}

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Timer {
  SlirpTimerCb callback;
  void* opaque;
  int64_t due_ms = kNever;
};

// libslirp is not thread-safe: after start() only the thread touches slirp_, timers_ and polls_.
class SlirpNet final : public NetBackend {
 public:
  explicit SlirpNet(FrameHandler handler);
  ~SlirpNet() override;

  Status forward(const HostForward& forward);
  void start();

  void send(ByteSpan frame) override;
  void stop() override;
  uint64_t dropped() const override { return dropped_; }

 private:
  static SlirpNet& self(void* opaque) { return *static_cast<SlirpNet*>(opaque); }
  static ssize_t on_packet(const void* data, size_t size, void* opaque);
  static void* on_timer_new(SlirpTimerCb callback, void* callback_opaque, void* opaque);
  static void on_timer_free(void* timer, void* opaque);
  static int on_add_poll(int fd, int events, void* opaque);
  static int on_get_events(int index, void* opaque);

  void run();
  void wait_and_handle();
  uint32_t time_to_next_timer() const;
  void fire_timers();
  void take_frames();

  FrameHandler handler_;
  SlirpConfig config_{};
  SlirpCb callbacks_{};
  Slirp* slirp_ = nullptr;
  std::vector<std::unique_ptr<Timer>> timers_;
  std::vector<pollfd> polls_;

  std::mutex mutex_;
  std::deque<Bytes> queue_;  // under mutex_
  Wake wake_;
  std::atomic<bool> stopped_{false};
  std::atomic<uint64_t> dropped_{0};
  std::thread thread_;
};

SlirpNet::SlirpNet(FrameHandler handler) : handler_(std::move(handler)) {
  config_.version = 1;
  config_.in_enabled = true;
  config_.vnetwork = address("10.0.2.0");
  config_.vnetmask = address("255.255.255.0");
  config_.vhost = address("10.0.2.2");
  config_.vdhcp_start = address("10.0.2.15");
  config_.vnameserver = address("10.0.2.3");
  callbacks_.send_packet = on_packet;
  callbacks_.guest_error = [](const char*, void*) {};
  callbacks_.clock_get_ns = [](void*) { return now_ns(); };
  callbacks_.timer_new = on_timer_new;
  callbacks_.timer_free = on_timer_free;
  callbacks_.timer_mod = [](void* timer, int64_t due_ms, void*) {
    static_cast<Timer*>(timer)->due_ms = due_ms;
  };
  callbacks_.register_poll_fd = [](int, void*) {};
  callbacks_.unregister_poll_fd = [](int, void*) {};
  callbacks_.notify = [](void* opaque) { self(opaque).wake_.signal(); };
  slirp_ = slirp_new(&config_, &callbacks_, this);
}

SlirpNet::~SlirpNet() {
  stop();
  if (slirp_ != nullptr) slirp_cleanup(slirp_);
}

Status SlirpNet::forward(const HostForward& f) {
  if (slirp_ == nullptr)
    return UserError{.id = "NET-003",
                     .exit_code = ExitCode::kHostCannot,
                     .what = "user-mode networking did not start",
                     .seen = "libslirp refused its configuration",
                     .needed = "libslirp 4.7 or newer",
                     .mend = "upgrade libslirp0"};
  errno = 0;
  if (slirp_add_hostfwd(slirp_, f.udp, f.host_address, f.host_port, f.guest_address,
                        f.guest_port) == 0)
    return Done{};
  char text[INET_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET, &f.host_address, text, sizeof text);
  return UserError{.id = "NET-004",
                   .exit_code = ExitCode::kHostCannot,
                   .what = fmt::format("cannot forward the host's {} port {}:{}",
                                       f.udp ? "udp" : "tcp", text, f.host_port),
                   .seen = errno != 0 ? std::strerror(errno) : "libslirp refused",
                   .needed = "a free port of an address of this host",
                   .mend = "choose another port, or end what uses it"};
}

void SlirpNet::start() {
  thread_ = std::thread([this] {
    begin_thread("us-slirp");
    run();
  });
}

void SlirpNet::send(ByteSpan frame) {
  if (stopped_) return;
  {
    const std::lock_guard lock(mutex_);
    if (frame.size() > kFrameMax || queue_.size() >= kQueueMax) {
      ++dropped_;
      return;
    }
    queue_.emplace_back(frame.begin(), frame.end());
    if (queue_.size() != 1) return;  // the thread is already on its way
  }
  wake_.signal();
}

void SlirpNet::stop() {
  stopped_ = true;
  wake_.signal();
  if (thread_.joinable()) thread_.join();
}

ssize_t SlirpNet::on_packet(const void* data, size_t size, void* opaque) {
  SlirpNet& net = self(opaque);
  const auto* bytes = static_cast<const uint8_t*>(data);
  if (!net.stopped_ && size <= kFrameMax) net.handler_(Bytes(bytes, bytes + size));
  return static_cast<ssize_t>(size);
}

void* SlirpNet::on_timer_new(SlirpTimerCb callback, void* callback_opaque, void* opaque) {
  auto& timers = self(opaque).timers_;
  timers.push_back(std::make_unique<Timer>(Timer{callback, callback_opaque}));
  return timers.back().get();
}

void SlirpNet::on_timer_free(void* timer, void* opaque) {
  std::erase_if(self(opaque).timers_, [&](const auto& t) { return t.get() == timer; });
}

int SlirpNet::on_add_poll(int fd, int events, void* opaque) {
  auto& polls = self(opaque).polls_;
  short wanted = 0;
  if (events & SLIRP_POLL_IN) wanted |= POLLIN;
  if (events & SLIRP_POLL_OUT) wanted |= POLLOUT;
  if (events & SLIRP_POLL_PRI) wanted |= POLLPRI;
  polls.push_back({fd, wanted, 0});
  return static_cast<int>(polls.size() - 1);
}

int SlirpNet::on_get_events(int index, void* opaque) {
  const auto& polls = self(opaque).polls_;
  US_CHECK(index >= 0 && static_cast<size_t>(index) < polls.size());
  const short got = polls[static_cast<size_t>(index)].revents;
  int events = 0;
  if (got & POLLIN) events |= SLIRP_POLL_IN;
  if (got & POLLOUT) events |= SLIRP_POLL_OUT;
  if (got & POLLPRI) events |= SLIRP_POLL_PRI;
  if (got & POLLERR) events |= SLIRP_POLL_ERR;
  if (got & POLLHUP) events |= SLIRP_POLL_HUP;
  return events;
}

uint32_t SlirpNet::time_to_next_timer() const {
  int64_t wait = kLongestWaitMs;
  const int64_t now_ms = now_ns() / 1'000'000;
  for (const auto& timer : timers_)
    if (timer->due_ms != kNever) wait = std::min(wait, timer->due_ms - now_ms);
  return static_cast<uint32_t>(std::max<int64_t>(wait, 0));
}

void SlirpNet::fire_timers() {
  const int64_t now_ms = now_ns() / 1'000'000;
  // By index: a callback may add timers, or free them.
  for (size_t i = 0; i < timers_.size(); ++i) {
    Timer& timer = *timers_[i];
    if (timer.due_ms == kNever || timer.due_ms > now_ms) continue;
    timer.due_ms = kNever;
    timer.callback(timer.opaque);
  }
}

void SlirpNet::take_frames() {
  std::deque<Bytes> frames;
  {
    const std::lock_guard lock(mutex_);
    frames.swap(queue_);
  }
  for (const Bytes& frame : frames)
    slirp_input(slirp_, frame.data(), static_cast<int>(frame.size()));
}

void SlirpNet::wait_and_handle() {
  polls_.assign(1, pollfd{wake_.fd(), POLLIN, 0});
  uint32_t timeout_ms = time_to_next_timer();
  slirp_pollfds_fill(slirp_, &timeout_ms, on_add_poll, this);
  const int timeout = static_cast<int>(std::min(timeout_ms, kLongestWaitMs));
  const int ready = ::poll(polls_.data(), polls_.size(), timeout);
  if (ready > 0 && polls_[0].revents != 0) wake_.clear();
  slirp_pollfds_poll(slirp_, ready < 0, on_get_events, this);
}

void SlirpNet::run() {
  while (!stopped_) {
    wait_and_handle();
    fire_timers();
    take_frames();
  }
}

}  // namespace

Result<std::unique_ptr<NetBackend>> open_slirp(const NetSpec& spec, FrameHandler handler) {
  auto net = std::make_unique<SlirpNet>(std::move(handler));
  for (const HostForward& forward : spec.forwards)
    if (Status status = net->forward(forward); !status) return status.error();
  net->start();
  return std::unique_ptr<NetBackend>(std::move(net));
}

}  // namespace us::hv
