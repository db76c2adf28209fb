#include "tests/simulation/network.h"

namespace us::sim {

using std::chrono::microseconds;
using std::chrono::milliseconds;

void Connection::send(int from, const log::Message& message) {
  if (!alive(from)) return;
  Bytes bytes;
  log::encode(message, bytes);
  put(from, std::move(bytes), false);
}

void Connection::put(int from, Bytes bytes, bool end) {
  Direction& d = directions_[from];
  if (d.closed) return;
  d.closed = end;
  // Usually quick; now and then a packet is lost and sent again.
  Nanos delay = random_.between(microseconds(20), microseconds(400));
  if (random_.chance(0.02)) delay += random_.between(milliseconds(1), milliseconds(60));
  d.last = std::max(d.last, schedule_.now() + delay);
  d.parcels.push_back({std::move(bytes), end});
  auto self = shared_from_this();
  // Parcels become ready in order; the one that does is the first that was not.
  schedule_.at(d.last, [self, from] {
    for (Parcel& p : self->directions_[from].parcels) {
      if (p.ready) continue;
      p.ready = true;
      break;
    }
    self->pump(from);
  });
}

void Connection::pump(int from) {
  Direction& d = directions_[from];
  const int to = 1 - from;
  while (d.open && !d.paused && !d.parcels.empty() && d.parcels.front().ready) {
    Parcel parcel = std::move(d.parcels.front());
    d.parcels.pop_front();
    if (parcel.end) return finish(to, "closed by the peer");
    deliver(to, parcel.bytes);
  }
}

void Connection::deliver(int to, ByteSpan bytes) {
  log::MessageReader& reader = directions_[1 - to].reader;
  while (alive(to) && !bytes.empty()) {
    // In pieces, as sockets give them.
    const size_t piece = 1 + random_.below(bytes.size());
    ByteSpan now = bytes.first(piece);
    bytes = bytes.subspan(piece);
    while (alive(to)) {
      now = now.subspan(reader.feed(now));
      auto message = reader.next();
      if (!message) return finish(to, log::describe(message.error()));
      if (!message->has_value()) {
        if (now.empty()) break;
        continue;
      }
      // A copy: the handler may close this end while it runs.
      const auto handler = ends_[to].message;
      if (!handler(std::move(**message))) return close(to, false);
    }
  }
}

void Connection::finish(int side, const std::string& why) {
  if (!alive(side)) return;
  const auto closed = std::move(ends_[side].closed);
  ends_[side] = {};
  put(side, {}, true);
  if (closed) closed(why);
}

void Connection::close(int from, bool kill) {
  if (!alive(from)) return;
  if (kill) {
    // The kernel may have sent some of it.
    auto& parcels = directions_[from].parcels;
    while (!parcels.empty() && random_.chance(0.5)) parcels.pop_back();
  }
  auto closed = std::move(ends_[from].closed);
  ends_[from] = {};
  put(from, {}, true);
  if (!kill && closed) {
    auto self = shared_from_this();
    schedule_.after(microseconds(1), [closed] { closed("closed here"); });
  }
}

void Connection::set_open(int from, bool open) {
  directions_[from].open = open;
  pump_soon(from);
}

void Connection::set_paused(int reader, bool paused) {
  directions_[1 - reader].paused = paused;
  pump_soon(1 - reader);
}

// Not at once: who asks may hold a lock that delivering needs.
void Connection::pump_soon(int from) {
  auto self = shared_from_this();
  schedule_.after(Nanos(0), [self, from] { self->pump(from); });
}

}  // namespace us::sim
