// Peers that are none: wrong credentials, other protocols, silence, floods, garbage.
#include <doctest/doctest.h>
#include <thread>
#include <vector>

#include "logchannel/channel/link.h"
#include "pair.h"
#include "pki.h"
#include "raw_peer.h"

namespace us::log {
namespace {

// What each side of such a pair is told.
struct Refusals {
  std::string listening, connecting;
};

Refusals refusals(const Credentials& listening, const Credentials& connecting) {
  Pair pair(listening, connecting);
  // As a primary does: it greets as soon as it can.
  pair.primary_network->connect(
      pair.at, connecting, kPatience,
      [&](const LinkPtr& link) {
        link->send(sample_hello());
        return Link::Handlers{nullptr, [&](const LinkEnd& end) { pair.primary.failed.put(end); }};
      },
      pair.primary.on_failed());
  const auto rejected = pair.secondary.failed.take();
  const auto failed = pair.primary.failed.take();
  CHECK(pair.secondary.links.size() == 0);
  REQUIRE((rejected.has_value() && failed.has_value()));
  return {rejected->error.id, failed->error.id};
}

// Says something to a listener, hears it out, and returns what the listener's side was told.
LinkEnd told_about(const Credentials& listening, std::string_view said, bool and_leaves = false) {
  Pair pair(listening);
  RawPeer peer(pair.at.port);
  peer.say(said);
  if (and_leaves) {
    peer.close();
  } else {
    peer.hear();
  }
  const auto end = pair.secondary.failed.take();
  REQUIRE(end.has_value());
  CHECK(pair.secondary.links.size() == 0);
  return *end;
}

std::string as_text(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }

}  // namespace

TEST_CASE("a peer with another key is CHAN-008 on both sides") {
  const Refusals told = refusals(psk(1), psk(2));
  CHECK(told.listening == "CHAN-008");
  CHECK(told.connecting == "CHAN-008");
}

TEST_CASE("a certificate of another authority is CHAN-009 on both sides") {
  const TempFolder ours, theirs;
  Authority("ours").issue(ours, "host1");
  Authority("theirs").issue(theirs, "host2");
  const Refusals told = refusals(certificates(ours), certificates(theirs));
  CHECK(told.listening == "CHAN-009");
  CHECK(told.connecting == "CHAN-009");
}

TEST_CASE("an expired certificate is CHAN-009 on both sides, whoever has it") {
  const Authority authority("authority");
  const TempFolder good, expired;
  authority.issue(good, "host1");
  authority.issue(expired, "host2", 0);
  Refusals told = refusals(certificates(expired), certificates(good));
  CHECK(told.listening == "CHAN-009");
  CHECK(told.connecting == "CHAN-009");
  told = refusals(certificates(good), certificates(expired));
  CHECK(told.listening == "CHAN-009");
  CHECK(told.connecting == "CHAN-009");
}

TEST_CASE("a key on one side and certificates on the other are CHAN-016") {
  const TempFolder folder;
  Authority("authority").issue(folder, "host1");
  Refusals told = refusals(psk(), certificates(folder));
  CHECK(told.listening == "CHAN-016");
  CHECK(told.connecting == "CHAN-016");
  // An impostor with a certificate does not get by a side that wants the key.
  told = refusals(certificates(folder), psk());
  CHECK(told.listening == "CHAN-009");  // all it hears is that its certificate is not wanted
  CHECK(told.connecting == "CHAN-016");
}

TEST_CASE("TLS on one side only is CHAN-010") {
  const Refusals no_tls_here = refusals(plaintext(), psk());
  CHECK(no_tls_here.listening == "CHAN-010");
  CHECK(no_tls_here.connecting == "CHAN-010");
  const Refusals no_tls_there = refusals(psk(), plaintext());
  CHECK(no_tls_there.listening == "CHAN-010");
  CHECK(no_tls_there.connecting == "CHAN-010");
}

TEST_CASE("other protocols are CHAN-011, whatever they say") {
  for (const Credentials& credentials : {plaintext(), psk()}) {
    for (const std::string& said :
         {std::string("GET / HTTP/1.0\r\n\r\n"), std::string("SSH-2.0-x\r\n   "),
          std::string(64, '\0'), std::string(64, '\xff'), std::string(100'000, 'A')}) {
      const LinkEnd end = told_about(credentials, said);
      CHECK(end.kind == LinkEnd::Kind::kBadPeer);
      CHECK(end.error.id == "CHAN-011");
    }
  }
}

TEST_CASE("a peer that leaves without a word, or in the middle of one, is told of as gone") {
  const std::string hello = as_text(encoded(sample_hello()));
  for (const Credentials& credentials : {plaintext(), psk()}) {
    for (const std::string& said : {std::string(), hello.substr(0, 5)}) {
      const LinkEnd end = told_about(credentials, said, true);
      const bool no_tls = credentials.kind == CredentialKind::kPsk && !said.empty();
      CHECK(end.kind == (no_tls ? LinkEnd::Kind::kBadPeer : LinkEnd::Kind::kClosedByPeer));
      CHECK(end.error.id == (no_tls ? "CHAN-011" : "CHAN-013"));
    }
  }
}

TEST_CASE("half a greeting and then silence is CHAN-007 after a while") {
  const std::string hello = as_text(encoded(sample_hello()));
  const LinkEnd end = told_about(plaintext(), hello.substr(0, hello.size() / 2));
  CHECK(end.kind == LinkEnd::Kind::kTimedOut);
  CHECK(end.error.id == "CHAN-007");
}

TEST_CASE("a greeting with a damaged byte is CHAN-012; anything but a greeting at first, too") {
  std::string hello = as_text(encoded(sample_hello()));
  hello[20] ^= 1;
  CHECK(told_about(plaintext(), hello).error.id == "CHAN-012");
  CHECK(told_about(plaintext(), as_text(encoded(Ack{}))).error.id == "CHAN-012");
}

TEST_CASE("after its greeting, a message past its bound ends the link before its bytes are here") {
  Pair pair(plaintext());
  RawPeer peer(pair.at.port);
  REQUIRE(peer.say(encoded(sample_hello())));
  REQUIRE(pair.secondary.links.take().has_value());
  const Bytes too_long = {1, 0, 0x21, 1, 3, 0, 0, 0, 0, 0, 0, 0};  // a frame of over 18 MiB
  REQUIRE(peer.say(too_long));
  const auto end = pair.secondary.ends.take();
  REQUIRE(end.has_value());
  CHECK(end->kind == LinkEnd::Kind::kBadPeer);
  CHECK(end->error.id == "CHAN-012");
  CHECK(peer.hear().empty());
}

TEST_CASE("a peer that floods is read no faster than its messages are handled") {
  Pair pair(plaintext());
  RawPeer peer(pair.at.port);
  REQUIRE(peer.say(encoded(sample_hello())));
  const LinkPtr link = *pair.secondary.links.take();
  link->pause_reading(true);
  Bytes flood;
  for (int i = 0; i < 1000; ++i) encode(Heartbeat{}, flood);
  // More than a paused side takes: what the kernel buffers, and one buffer of ours.
  std::thread sender([&] {
    for (int i = 0; i < 1000; ++i) {
      if (!peer.say(flood)) return;
    }
  });
  link->pause_reading(false);
  for (int i = 0; i < 10'000; ++i) REQUIRE(pair.secondary.messages.take().has_value());
  link->close();
  sender.join();
  const auto end = pair.secondary.ends.take();
  REQUIRE(end.has_value());
  CHECK(end->kind == LinkEnd::Kind::kClosedHere);
}

TEST_CASE("forty silent connections keep nobody out, and are told of as a crowd") {
  for (const Credentials& credentials : {plaintext(), psk()}) {
    Pair pair(credentials);
    std::vector<RawPeer> crowd;
    for (int i = 0; i < 40; ++i) crowd.emplace_back(pair.at.port);
    pair.greet();
    const auto end = pair.secondary.failed.take();
    REQUIRE(end.has_value());
    CHECK(end->error.id == "CHAN-015");
    // The rest come together, a second later.
    const auto rest = pair.secondary.failed.take();
    REQUIRE(rest.has_value());
    CHECK(rest->error.seen.find("peers that were turned away") != std::string::npos);
  }
}

TEST_CASE("a listener that talks another protocol is found out by the side that connects") {
  for (const Credentials& credentials : {plaintext(), psk()}) {
    RawListener listener;
    auto network = Network::start();
    Side side;
    network->connect(
        {"127.0.0.1", listener.port()}, credentials, kPatience,
        [&](const LinkPtr& link) {
          link->send(sample_hello());
          return Link::Handlers{nullptr, [&](const LinkEnd& end) { side.failed.put(end); }};
        },
        side.on_failed());
    RawPeer peer = listener.accept();
    REQUIRE(peer.say("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"));
    const auto end = side.failed.take();
    REQUIRE(end.has_value());
    CHECK(end->kind == LinkEnd::Kind::kBadPeer);
    CHECK(end->error.id == "CHAN-011");
    CHECK(end->error.seen == "the peer speaks SSH");
  }
}

TEST_CASE("a peer that takes the greeting and never answers is CHAN-007") {
  RawListener listener;
  auto network = Network::start();
  Side side;
  network->connect({"127.0.0.1", listener.port()}, plaintext(), kPatience, side.on_link(),
                   side.on_failed());
  RawPeer peer = listener.accept();
  const auto end = side.ends.take();
  REQUIRE(end.has_value());
  CHECK(end->kind == LinkEnd::Kind::kTimedOut);
  CHECK(end->error.id == "CHAN-007");
}

TEST_CASE("bytes changed between the two end a TLS link, and nothing of them is delivered") {
  // A relay in the middle that flips a bit of what the primary says after the greeting.
  Pair pair(psk());
  RawListener middle;
  pair.primary_network->connect({"127.0.0.1", middle.port()}, psk(), kPatience,
                                pair.primary.on_link(), pair.primary.on_failed());
  RawPeer left = middle.accept();
  RawPeer right(pair.at.port);
  REQUIRE(right.say(left.hear_some()));  // the client's hello
  REQUIRE(left.say(right.hear_some()));  // all the server says
  const LinkPtr link = *pair.primary.links.take();
  link->send(sample_hello());
  Bytes said = left.hear_some();
  said.back() ^= 1;
  REQUIRE(right.say(said));
  const auto end = pair.secondary.failed.take();
  REQUIRE(end.has_value());
  CHECK(end->kind == LinkEnd::Kind::kBadPeer);
  CHECK(end->error.id == "CHAN-012");
  CHECK(pair.secondary.links.size() == 0);
}

}  // namespace us::log
