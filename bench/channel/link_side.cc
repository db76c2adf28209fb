#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "logchannel/channel/link.h"
#include "measure.h"

namespace us::log::bench {
namespace {

// What a primary leaves unacknowledged at most, in such a test.
constexpr size_t kWaitingMax = 4 * 1024 * 1024;

Credentials credentials(bool tls) {
  Credentials made;
  made.kind = tls ? CredentialKind::kPsk : CredentialKind::kPlaintext;
  made.key = Bytes(32, 1);
  return made;
}

class Signal {
 public:
  void raise() {
    const std::lock_guard lock(mutex_);
    raised_ = true;
    changed_.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return raised_; });
    raised_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool raised_ = false;
};

// Two networks, linked; each side's messages go to its function.
class LinkPair {
 public:
  using OnMessage = std::function<void(const Message&)>;
  LinkPair(bool tls, OnMessage at_primary, OnMessage at_secondary) {
    auto failed = [](const LinkEnd& end) { US_CHECK(false, "{}", end.error.text()); };
    Signal up;
    const auto port = secondary_->listen(
        {"127.0.0.1", 0}, credentials(tls),
        [&](LinkPtr link) {
          to_primary = std::move(link);
          return Link::Handlers{[&up, at_secondary](const Message& message) {
                                  if (type_of(message) == MessageType::kHello) {
                                    up.raise();
                                  } else {
                                    at_secondary(message);
                                  }
                                  return true;
                                },
                                nullptr};
        },
        failed);
    US_CHECK(port.ok(), "{}", port.error().text());
    primary_->connect(
        {"127.0.0.1", *port}, credentials(tls), std::chrono::seconds(5),
        [&](LinkPtr link) {
          to_secondary = std::move(link);
          to_secondary->send(Hello{});
          return Link::Handlers{[&up, at_primary](const Message& message) {
                                  if (type_of(message) == MessageType::kWelcome) {
                                    up.raise();
                                  } else {
                                    at_primary(message);
                                  }
                                  return true;
                                },
                                nullptr};
        },
        failed);
    up.wait();
    to_primary->send(Welcome{});
    up.wait();
  }

  LinkPtr to_primary, to_secondary;

 private:
  std::unique_ptr<Network> primary_ = Network::start(), secondary_ = Network::start();
};

}  // namespace

Seconds link_throughput(bool tls, size_t total, size_t write_bytes) {
  Signal done;
  size_t received = 0;
  LinkPair pair(
      tls, [](const Message&) {},
      [&](const Message& message) {
        received += std::get<FrameMessage>(message).frame.size();
        if (received == total) done.raise();
      });
  const Bytes frame(write_bytes, 0x5a);
  const auto start = std::chrono::steady_clock::now();
  for (size_t sent = 0; sent < total; sent += write_bytes) {
    while (pair.to_secondary->counters().bytes_waiting > kWaitingMax) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    pair.to_secondary->send_frame(frame);
  }
  done.wait();
  return std::chrono::steady_clock::now() - start;
}

std::vector<Micros> link_pings(bool tls) {
  Signal back;
  std::vector<Micros> times;
  std::chrono::steady_clock::time_point start;
  LinkPtr to_primary;
  LinkPair pair(
      tls,
      [&](const Message&) {
        times.push_back(std::chrono::steady_clock::now() - start);
        back.raise();
      },
      [&](const Message&) { to_primary->send(Ack{}); });
  to_primary = pair.to_primary;
  const Bytes frame(kPingBytes, 0x5a);
  while (times.size() < kPingsAtOnce) {
    start = std::chrono::steady_clock::now();
    pair.to_secondary->send_frame(frame);
    back.wait();
  }
  return times;
}

}  // namespace us::log::bench
