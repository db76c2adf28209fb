// Two sides of a channel over loopback, and what the tests ask them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "logchannel/channel/link.h"

namespace us::log {

// Far longer than anything takes: a test that runs into it has failed.
constexpr std::chrono::seconds kPatience{60};

// Values from the network thread, for the test's.
template <class T>
class Mailbox {
 public:
  void put(T value) {
    const std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  // Waits for the next one; nothing when none comes.
  std::optional<T> take(std::chrono::milliseconds patience = kPatience) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, patience, [&] { return !values_.empty(); })) return std::nullopt;
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }
  size_t size() const {
    const std::lock_guard lock(mutex_);
    return values_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> values_;
};

// What happened to one side's links.
struct Side {
  Mailbox<LinkPtr> links;
  Mailbox<Message> messages;
  Mailbox<LinkEnd> ends;    // of links
  Mailbox<LinkEnd> failed;  // connects that failed, peers turned away

  // For Network::connect and Network::listen. The side must outlive the network.
  Network::Connected on_link();
  Network::Failed on_failed();
};

// A network with a listener on a free port of the loopback, and one that connects to it.
class Pair {
 public:
  explicit Pair(const Credentials& both) : Pair(both, both) {}
  Pair(const Credentials& listening, const Credentials& connecting);

  void connect();
  // Connects, greets both ways; both links are up.
  void greet();

  Side primary, secondary;  // primary connects
  Endpoint at;
  Credentials connecting;
  std::unique_ptr<Network> secondary_network, primary_network;  // go before the sides
  LinkPtr to_secondary, to_primary;                             // after greet()
};

Credentials plaintext();
Credentials psk(uint8_t seed = 1);

Hello sample_hello();
Welcome sample_welcome();
Bytes encoded(const Message& message);

}  // namespace us::log
