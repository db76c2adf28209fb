// Connections as TCP gives them: bytes in order and whole, or an end; late by as much as the
// network likes; cut by partitions, one way or both, for a while or until somebody gives up.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>

#include "logchannel/channel/message.h"
#include "tests/simulation/random.h"

namespace us::sim {

using Nanos = std::chrono::nanoseconds;

// Events of the whole simulation, in time order.
class Schedule {
 public:
  Nanos now() const { return now_; }
  void at(Nanos when, std::function<void()> f) {
    events_.emplace(std::max(when, now_), std::move(f));
  }
  void after(Nanos delay, std::function<void()> f) { at(now_ + delay, std::move(f)); }
  bool run_next() {
    if (events_.empty()) return false;
    auto first = events_.begin();
    now_ = first->first;
    const std::function<void()> f = std::move(first->second);
    events_.erase(first);
    f();
    return true;
  }

 private:
  Nanos now_{std::chrono::seconds(1)};
  std::multimap<Nanos, std::function<void()>> events_;
};

// One end's view of a connection.
struct EndPoint {
  std::function<bool(log::Message)> message;
  std::function<void(const std::string&)> closed;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Schedule& schedule, Random& random) : schedule_(schedule), random_(random) {}

  // Side 0 is the primary's end, 1 the secondary's.
  void set_end(int side, EndPoint end) { ends_[side] = std::move(end); }
  void send(int from, const log::Message& message);
  // This end closes; what it sent before still arrives (kill: what is on the way may be lost too).
  void close(int from, bool kill);
  // Bytes from `from` wait until set true again.
  void set_open(int from, bool open);
  void set_paused(int reader, bool paused);
  bool alive(int side) const { return static_cast<bool>(ends_[side].message); }

 private:
  struct Parcel {
    Bytes bytes;
    bool end = false;
    bool ready = false;  // its delay is over
  };
  struct Direction {
    std::deque<Parcel> parcels;
    bool open = true, paused = false, closed = false;
    Nanos last{0};
    log::MessageReader reader;
  };
  void put(int from, Bytes bytes, bool end);
  void pump(int from);
  void pump_soon(int from);
  void deliver(int to, ByteSpan bytes);
  void finish(int side, const std::string& why);

  Schedule& schedule_;
  Random& random_;
  EndPoint ends_[2];
  Direction directions_[2];
};

}  // namespace us::sim
