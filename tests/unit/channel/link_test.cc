#include "logchannel/channel/link.h"

#include <doctest/doctest.h>
#include <future>
#include <thread>

#include "pair.h"
#include "pki.h"
#include "raw_peer.h"

namespace us::log {
namespace {

// One of each kind. The folder backs the certificates.
std::vector<Credentials> all_kinds(const TempFolder& folder) {
  Authority("authority").issue(folder, "both");
  return {plaintext(), psk(), certificates(folder)};
}

Message heartbeat(uint64_t n) {
  Heartbeat made;
  made.sent_ns = n;
  return made;
}

std::optional<LinkEnd::Kind> kind_of(const std::optional<LinkEnd>& end) {
  return end ? std::optional(end->kind) : std::nullopt;
}

}  // namespace

TEST_CASE("two sides greet, and messages go both ways") {
  const TempFolder folder;
  for (const Credentials& credentials : all_kinds(folder)) {
    Pair pair(credentials);
    pair.greet();
    Ack ack;
    ack.next_sequence = 17;
    pair.to_primary->send(ack);
    CHECK(pair.primary.messages.take() == Message(ack));
    pair.to_secondary->send(heartbeat(5));
    CHECK(pair.secondary.messages.take() == heartbeat(5));
    for (const size_t size : {0, 1, 16'371, 16'372, 16'373, 100'000}) {
      Bytes frame(size);
      for (size_t i = 0; i < size; ++i) frame[i] = static_cast<uint8_t>(i * 7);
      pair.to_secondary->send_frame(frame);
      CHECK(pair.secondary.messages.take() == Message(FrameMessage{frame}));
    }
    CHECK(pair.to_secondary->peer() == pair.at.text());
    CHECK(pair.to_primary->peer().starts_with("127.0.0.1:"));
    CHECK(pair.to_secondary->counters().bytes_sent > 100'000);
    CHECK(pair.to_primary->counters().bytes_received == pair.to_secondary->counters().bytes_sent);
    CHECK(pair.to_secondary->counters().bytes_waiting == 0);
  }
}

TEST_CASE("a link can send from within a handler") {
  Pair pair(psk());
  std::promise<void> answered;
  Side side;
  auto network = Network::start();
  network->connect(
      pair.at, psk(), kPatience,
      [&](const LinkPtr& up) {
        up->send(sample_hello());
        return Link::Handlers{[up, &answered](const Message& message) {
                                up->send(message);
                                answered.set_value();
                                return true;
                              },
                              nullptr};
      },
      side.on_failed());
  const LinkPtr accepted = *pair.secondary.links.take();
  CHECK(pair.secondary.messages.take() == Message(sample_hello()));
  accepted->send(sample_welcome());
  answered.get_future().wait();
  // A second greeting is out of turn.
  const auto end = pair.secondary.ends.take();
  REQUIRE(kind_of(end) == LinkEnd::Kind::kBadPeer);
  CHECK(end->error.id == "CHAN-012");
}

TEST_CASE("frames sent by four threads at once arrive whole, each thread's in order") {
  for (const Credentials& credentials : {plaintext(), psk()}) {
    Pair pair(credentials);
    pair.greet();
    constexpr size_t kThreads = 4, kFrames = 200;
    std::vector<std::thread> threads;
    for (size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = 0; i < kFrames; ++i) {
          Bytes frame(i * 97 + 2, static_cast<uint8_t>(i));
          frame[0] = static_cast<uint8_t>(t);
          pair.to_secondary->send_frame(frame);
        }
      });
    }
    std::array<size_t, kThreads> next{};
    for (size_t n = 0; n < kThreads * kFrames; ++n) {
      const auto message = pair.secondary.messages.take();
      REQUIRE(message.has_value());
      const Bytes& frame = std::get<FrameMessage>(*message).frame;
      REQUIRE(frame.size() >= 2);
      REQUIRE(frame[0] < kThreads);
      const size_t i = next[frame[0]]++;
      CHECK(frame.size() == i * 97 + 2);
      CHECK(std::all_of(frame.begin() + 1, frame.end(),
                        [&](uint8_t byte) { return byte == static_cast<uint8_t>(i); }));
    }
    for (std::thread& thread : threads) thread.join();
  }
}

TEST_CASE("closing at once ends both sides, each with its own reason, once") {
  for (const Credentials& credentials : {plaintext(), psk()}) {
    Pair pair(credentials);
    pair.greet();
    pair.to_secondary->close();
    pair.to_secondary->close();
    CHECK(kind_of(pair.primary.ends.take()) == LinkEnd::Kind::kClosedHere);
    const auto end = pair.secondary.ends.take();
    REQUIRE(kind_of(end) == LinkEnd::Kind::kClosedByPeer);
    CHECK(end->error.id == "CHAN-013");
    pair.to_secondary->send(heartbeat(1));
    pair.to_primary->send(heartbeat(2));
    pair.to_primary->send_frame(Bytes(10));
    pair.to_primary->pause_reading(true);
    pair.to_primary->pause_reading(false);
    pair.to_primary->close(std::chrono::seconds(1));
    // Everything that was on its way is through when both networks are gone.
    pair.primary_network.reset();
    pair.secondary_network.reset();
    CHECK(pair.primary.ends.size() == 0);
    CHECK(pair.secondary.ends.size() == 0);
    CHECK(pair.primary.messages.size() == 0);
    CHECK(pair.secondary.messages.size() == 0);
  }
}

TEST_CASE("closing with patience sends what is queued, the goodbye last, to a peer that is slow") {
  const TempFolder folder;
  for (const Credentials& credentials : all_kinds(folder)) {
    Pair pair(credentials);
    pair.greet();
    pair.to_primary->pause_reading(true);
    constexpr size_t kFrames = 64;
    for (size_t i = 0; i < kFrames; ++i) pair.to_secondary->send_frame(Bytes(256 * 1024, 1));
    Goodbye goodbye;
    goodbye.text = "that is all";
    pair.to_secondary->send(goodbye);
    CHECK(pair.to_secondary->counters().bytes_waiting > 0);
    pair.to_secondary->close(kPatience);
    // What the other side says meanwhile goes nowhere, and does no harm.
    for (int i = 0; i < 100; ++i) pair.to_primary->send(heartbeat(1));
    pair.to_primary->pause_reading(false);
    for (size_t i = 0; i < kFrames; ++i) {
      const auto message = pair.secondary.messages.take();
      REQUIRE(message.has_value());
      CHECK(type_of(*message) == MessageType::kFrame);
    }
    CHECK(pair.secondary.messages.take() == Message(goodbye));
    CHECK(kind_of(pair.secondary.ends.take()) == LinkEnd::Kind::kClosedByPeer);
    CHECK(kind_of(pair.primary.ends.take()) == LinkEnd::Kind::kClosedHere);
    CHECK(pair.primary.messages.size() == 0);
  }
}

TEST_CASE("closing with patience gives up on a peer that does not read") {
  Pair pair(psk());
  pair.greet();
  pair.to_primary->pause_reading(true);
  for (size_t i = 0; i < 64; ++i) pair.to_secondary->send_frame(Bytes(256 * 1024, 1));
  pair.to_secondary->close(std::chrono::milliseconds(50));
  CHECK(kind_of(pair.primary.ends.take()) == LinkEnd::Kind::kClosedHere);
}

TEST_CASE("a pause from a handler makes that message the last one until reading goes on") {
  for (const Credentials& credentials : {plaintext(), psk()}) {
    Pair pair(credentials);
    Side side;
    auto network = Network::start();
    network->connect(
        pair.at, credentials, kPatience,
        [&](const LinkPtr& up) {
          side.links.put(up);
          up->send(sample_hello());
          return Link::Handlers{[&side, up](Message message) {
                                  up->pause_reading(true);
                                  side.messages.put(std::move(message));
                                  return true;
                                },
                                nullptr};
        },
        side.on_failed());
    const LinkPtr link = *side.links.take();
    const LinkPtr accepted = *pair.secondary.links.take();
    accepted->send(sample_welcome());
    for (uint64_t i = 0; i < 10; ++i) accepted->send(heartbeat(i));
    CHECK(side.messages.take() == Message(sample_welcome()));
    for (uint64_t i = 0; i < 10; ++i) {
      // Whatever the network's thread had begun is done when it comes to this.
      std::promise<void> idle;
      network->post([&] { idle.set_value(); });
      idle.get_future().wait();
      CHECK(side.messages.size() == 0);
      link->pause_reading(false);
      CHECK(side.messages.take() == heartbeat(i));
    }
    network.reset();
  }
}

TEST_CASE("nobody listens there: refused") {
  uint16_t port = 0;
  {
    RawListener gone;
    port = gone.port();
  }
  auto network = Network::start();
  Side side;
  network->connect({"127.0.0.1", port}, psk(), kPatience, side.on_link(), side.on_failed());
  const auto end = side.failed.take();
  REQUIRE(kind_of(end) == LinkEnd::Kind::kRefused);
  CHECK(end->error.id == "CHAN-005");
}

TEST_CASE("a name that does not resolve fails to connect, and to listen on") {
  auto network = Network::start();
  Side side;
  const Endpoint nowhere{"no-such-host.invalid", 1};
  network->connect(nowhere, psk(), kPatience, side.on_link(), side.on_failed());
  const auto end = side.failed.take();
  REQUIRE(kind_of(end) == LinkEnd::Kind::kBroken);
  CHECK(end->error.id == "CHAN-005");
  const auto port = network->listen(nowhere, psk(), side.on_link(), side.on_failed());
  REQUIRE_FALSE(port.ok());
  CHECK(port.error().id == "CHAN-006");
}

TEST_CASE("a port that is taken cannot be listened on; one that was given up can") {
  Pair pair(psk());
  auto network = Network::start();
  Side side;
  auto port = network->listen(pair.at, psk(), side.on_link(), side.on_failed());
  REQUIRE_FALSE(port.ok());
  CHECK(port.error().id == "CHAN-006");
  pair.greet();
  pair.secondary_network->stop_listening();
  port = network->listen(pair.at, psk(), side.on_link(), side.on_failed());
  REQUIRE(port.ok());
  CHECK(*port == pair.at.port);
  // The link that stood goes on.
  pair.to_primary->send(heartbeat(3));
  CHECK(pair.primary.messages.take() == heartbeat(3));
}

TEST_CASE("a listener that says nothing is given up when time is out") {
  const RawListener silent;
  auto network = Network::start();
  Side side;
  network->connect({"127.0.0.1", silent.port()}, psk(), std::chrono::milliseconds(100),
                   side.on_link(), side.on_failed());
  const auto end = side.failed.take();
  REQUIRE(kind_of(end) == LinkEnd::Kind::kTimedOut);
  CHECK(end->error.id == "CHAN-007");
}

TEST_CASE("a network that goes closes its links, here and there, and lets go of the handlers") {
  Pair pair(psk());
  pair.greet();
  pair.secondary_network.reset();
  CHECK(kind_of(pair.secondary.ends.take()) == LinkEnd::Kind::kClosedHere);
  CHECK(kind_of(pair.primary.ends.take()) == LinkEnd::Kind::kClosedByPeer);
  pair.to_primary->send(heartbeat(1));

  auto network = Network::start();
  const auto token = std::make_shared<int>(0);
  const RawListener silent;
  Side side;
  network->connect({"127.0.0.1", silent.port()}, psk(), kPatience, side.on_link(),
                   [token, &side](const LinkEnd& end) { side.failed.put(end); });
  network->every(kPatience, [token] { return true; });
  network->post([token] {});
  network.reset();
  CHECK(kind_of(side.failed.take()) == LinkEnd::Kind::kClosedHere);
  CHECK(token.use_count() == 1);
}

TEST_CASE("a handler that says no closes the link") {
  Pair pair(psk());
  Side side;
  auto network = Network::start();
  network->connect(
      pair.at, psk(), kPatience,
      [&](const LinkPtr& up) {
        up->send(sample_hello());
        return Link::Handlers{[](const Message&) { return false; },
                              [&](const LinkEnd& end) { side.ends.put(end); }};
      },
      side.on_failed());
  (*pair.secondary.links.take())->send(sample_welcome());
  const auto end = side.ends.take();
  REQUIRE(kind_of(end) == LinkEnd::Kind::kBadPeer);
  CHECK(end->error.id == "CHAN-012");
  CHECK(kind_of(pair.secondary.ends.take()) == LinkEnd::Kind::kClosedByPeer);
}

TEST_CASE(
    "what is posted runs in order on the network's thread; what is periodic stops when told") {
  auto network = Network::start();
  Mailbox<int> order;
  Mailbox<std::thread::id> threads;
  for (int i = 0; i < 3; ++i) {
    network->post([&, i] {
      order.put(i);
      threads.put(std::this_thread::get_id());
    });
  }
  for (int i = 0; i < 3; ++i) CHECK(order.take() == i);
  const auto first = threads.take();
  CHECK(first != std::this_thread::get_id());
  CHECK(threads.take() == first);
  int calls = 0;
  network->every(std::chrono::milliseconds(1), [&] {
    order.put(++calls);
    return calls < 5;
  });
  for (int i = 1; i <= 5; ++i) CHECK(order.take() == i);
  network.reset();
  CHECK(order.size() == 0);
}

}  // namespace us::log
