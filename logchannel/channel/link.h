// One connection between primary and secondary: TCP (nodelay), TLS inside it, messages inside that.
// Boost.Asio waits, we read and write: a send goes out on the calling thread when the socket takes
// it, so that an output's record does not wait for a thread switch.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "logchannel/channel/credentials.h"
#include "logchannel/channel/message.h"

namespace us::log {

struct Endpoint {
  std::string host;  // name or address; IPv6 in brackets in text form
  uint16_t port = 0;
  std::string text() const;
};
// "HOST:PORT", "[::1]:PORT". Error CHAN-004.
Result<Endpoint> parse_endpoint(const std::string& text, const std::string& where);

// Why a link is over. `error` is for people and logs.
struct LinkEnd {
  enum class Kind : uint8_t {
    kClosedByPeer,  // orderly or reset
    kBroken,        // the network said so
    kRefused,       // nobody listens there (while connecting)
    kBadPeer,       // bytes that are no message of ours, or TLS failed: wrong key, no TLS
    kTimedOut,      // no connection, or no greeting, in time
    kClosedHere,
  };
  Kind kind = Kind::kClosedHere;
  UserError error{};  // ids: CHAN-005 ... see docs/errors.md
};

struct LinkCounters {
  std::atomic<uint64_t> bytes_sent{0};  // on the wire, TLS included
  std::atomic<uint64_t> bytes_received{0};
  std::atomic<uint64_t> bytes_waiting{0};  // given to send(), not yet taken by the kernel
};

// All calls from any thread. Handlers run on the network thread, one at a time.
class Link {
 public:
  struct Handlers {
    // Return false to close the link (the peer broke the protocol).
    std::function<bool(Message)> message;
    // Once, last. No handler runs afterwards.
    std::function<void(LinkEnd)> closed;
  };
  virtual ~Link() = default;
  // Queued in order. What the kernel does not take at once is kept (bytes_waiting) and sent by the
  // network thread; the caller bounds it by what it leaves unacknowledged. After the end: nothing.
  virtual void send(const Message& message) = 0;
  // As send(FrameMessage), without taking the frame's bytes apart or owning them.
  virtual void send_frame(ByteSpan frame) = 0;
  // Stop or go on reading: a side whose buffers are full stops, and TCP holds the peer back. From a
  // handler, the message being handled is the last one. What comes while paused, an end too, is
  // seen afterwards.
  virtual void pause_reading(bool paused) = 0;
  // Sends what is queued for at most `linger` (until the peer closes too), then closes; `closed` is
  // called. No message is delivered from here on.
  virtual void close(std::chrono::milliseconds linger = std::chrono::milliseconds(0)) = 0;
  virtual const LinkCounters& counters() const = 0;
  virtual std::string peer() const = 0;  // "ADDR:PORT"
};
using LinkPtr = std::shared_ptr<Link>;

// The thread that all links, listeners and timers of a process share.
class Network {
 public:
  static std::unique_ptr<Network> start();
  virtual ~Network() = default;  // closes everything, joins the thread

  // Connects in the background: `connected` gets a link whose TLS is up and returns its handlers
  // (it may send already), or `failed` hears why not. One attempt; `timeout` is for name, TCP and
  // TLS together; the peer's greeting must come within 5 s after that. Both run on the network
  // thread.
  using Connected = std::function<Link::Handlers(LinkPtr)>;
  using Failed = std::function<void(LinkEnd)>;
  virtual void connect(const Endpoint& to, const Credentials& credentials,
                       std::chrono::milliseconds timeout, Connected connected, Failed failed) = 0;

  // Listens; each peer that got through TLS and sent a whole greeting is given to `accepted`, which
  // returns its handlers; the greeting is their first message. Peers that fail are closed, counted,
  // and told to `rejected` (at most one a second; the text has the count). At most 16 peers may be
  // unknown at once, 5 s each; one more, and the oldest is dropped. One listener at a time. Errors:
  // CHAN-006 cannot listen, CHAN-002. Returns the port bound (for 0).
  virtual Result<uint16_t> listen(const Endpoint& at, const Credentials& credentials,
                                  Connected accepted, Failed rejected) = 0;
  // Frees the port at once. Peers not yet accepted are dropped, links stay.
  virtual void stop_listening() = 0;

  // Calls `f` on the network thread: now, or every `period` until the object is gone or `f` returns
  // false.
  virtual void post(std::function<void()> f) = 0;
  virtual void every(std::chrono::milliseconds period, std::function<bool()> f) = 0;
};

}  // namespace us::log
