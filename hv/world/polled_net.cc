#include "hv/world/polled_net.h"

#include <poll.h>

namespace us::hv {

namespace {
constexpr int kFramesAtOnce = 64;  // then look whether to stop
}

void PolledNet::start(const char* thread_name, int fd) {
  thread_ = std::thread([this, thread_name, fd] {
    begin_thread(thread_name);
    run(fd);
  });
}

void PolledNet::send(ByteSpan frame) {
  if (stopped_ || frame.empty()) return;
  const bool sent = frame.size() <= kFrameMax &&
                    write_frame(frame.data(), frame.size()) == static_cast<ssize_t>(frame.size());
  if (!sent) ++dropped_;
}

void PolledNet::stop() {
  stopped_ = true;
  wake_.signal();
  if (thread_.joinable()) thread_.join();
}

bool PolledNet::take_frames(Bytes& buffer) {
  for (int i = 0; i < kFramesAtOnce && !stopped_; ++i) {
    const ssize_t n = read_frame(buffer.data(), buffer.size());
    if (n <= 0) return i != 0;
    handler_(Bytes(buffer.begin(), buffer.begin() + n));
  }
  return true;
}

void PolledNet::run(int fd) {
  Bytes buffer(kFrameMax);
  while (!stopped_) {
    pollfd polls[2] = {{fd, POLLIN, 0}, {wake_.fd(), POLLIN, 0}};
    if (::poll(polls, 2, -1) < 0) continue;
    if (polls[0].revents == 0) continue;
    // A peer that has gone away leaves the descriptor readable for ever: the cable is cut then.
    const bool got = take_frames(buffer);
    if (!got && (polls[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) return;
  }
}

}  // namespace us::hv
