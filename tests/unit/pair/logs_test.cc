// Records through the two ends of the log, with connections that come and go.
#include <cstdlib>
#include <doctest/doctest.h>
#include <random>
#include <thread>

#include "replay-engine/pair/inbound_log.h"
#include "replay-engine/pair/outbound_log.h"

namespace us::replay {
namespace {

log::Record anchor(uint64_t n) {
  return {.at = {.branches = n * 100, .rip = 0xffffffff81000000 + n % 50},
          .body = log::Anchor{n * 100, n * 1'000'000, 1 << 20, n * 1'000'000 + 5}};
}

struct Ends {
  OutboundLog out{{}, 1 << 20};
  InboundLog in;
  bool attach() {
    return out.attach(in.next_sequence(), [this](ByteSpan frame) {
      std::string why;
      REQUIRE(in.add(frame, why));
    });
  }
};

TEST_CASE("records come out as they went in, with the same positions") {
  Ends ends;
  REQUIRE(ends.attach());
  for (uint64_t n = 1; n <= 500; ++n) {
    const LogPosition position = ends.out.append(anchor(n));
    if (n % 7 == 0) ends.out.send_now();
    if (n % 7 != 0) continue;
    for (uint64_t k = n - 6; k <= n; ++k) {
      const auto record = ends.in.next();
      REQUIRE(record.ok());
      REQUIRE(record->has_value());
      CHECK(**record == anchor(k));
    }
    CHECK(ends.in.position() == position);
  }
}

TEST_CASE("a log that is cut and resumed at random loses, doubles and reorders nothing") {
  const uint64_t seed = 20261124;
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Ends ends;
  bool attached = false;
  uint64_t read = 0;
  for (uint64_t n = 1; n <= 20'000; ++n) {
    ends.out.append(anchor(n));
    if (random() % 5 == 0) ends.out.send_now();
    if (random() % 50 == 0) {
      if (attached) ends.out.detach();
      if (!attached) REQUIRE(ends.attach());
      attached = !attached;
    }
    if (random() % 9 == 0) REQUIRE(ends.out.acked(ends.in.next_sequence()));
    for (;;) {
      const auto record = ends.in.try_next();
      REQUIRE(record.ok());
      if (!record->has_value()) break;
      CHECK(**record == anchor(++read));
    }
  }
  if (!attached) REQUIRE(ends.attach());
  ends.out.send_now();
  while (ends.in.try_next()->has_value()) ++read;
  CHECK(read == 20'000);
}

TEST_CASE(
    "frames that were acknowledged cannot be sent again, and acks for unsent ones are refused") {
  Ends ends;
  REQUIRE(ends.attach());
  for (uint64_t n = 1; n <= 3; ++n) {
    ends.out.append(anchor(n));
    ends.out.send_now();
  }
  CHECK(ends.out.bytes_waiting() > 0);
  CHECK(ends.out.acked(2));
  CHECK(ends.out.first_sequence() == 2);
  CHECK_FALSE(ends.out.attach(1, [](ByteSpan) {}));
  CHECK_FALSE(ends.out.acked(4));
  CHECK(ends.out.acked(3));
  CHECK(ends.out.bytes_waiting() == 0);
}

TEST_CASE("every flipped bit of a frame makes the log unusable, with a reason") {
  OutboundLog out({}, 1 << 20);
  Bytes frame;
  REQUIRE(out.attach(0, [&](ByteSpan bytes) { frame.assign(bytes.begin(), bytes.end()); }));
  out.append(anchor(1));
  out.send_now();
  for (size_t bit = 0; bit < frame.size() * 8; ++bit) {
    Bytes bad = frame;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    InboundLog in;
    std::string why;
    CHECK_FALSE(in.add(bad, why));
    CHECK(!why.empty());
    CHECK(in.why_ended() == InboundEnd::kUnusable);
  }
  for (size_t cut = 0; cut < frame.size(); ++cut) {
    InboundLog in;
    std::string why;
    CHECK_FALSE(in.add(ByteSpan(frame).first(cut), why));
  }
}

TEST_CASE(
    "what was received before the end can still be read, and the reader is woken by the end") {
  Ends ends;
  REQUIRE(ends.attach());
  ends.out.append(anchor(1));
  ends.out.send_now();
  std::thread later([&] { ends.in.end(InboundEnd::kPeerLost); });
  CHECK((*ends.in.next()).has_value());
  CHECK_FALSE((*ends.in.next()).has_value());
  later.join();
  CHECK(ends.in.end().ended);
  CHECK(ends.in.why_ended() == InboundEnd::kPeerLost);
}

TEST_CASE("only the record that entitles makes a secondary entitled, once it is read") {
  Ends ends;
  REQUIRE(ends.attach());
  ends.out.append(anchor(1));
  ends.out.append({.at = {.branches = 150}, .body = log::Marker{log::MarkerKind::kGoLive, 0, ""}});
  ends.out.send_now();
  CHECK((*ends.in.next()).has_value());
  CHECK_FALSE(ends.in.entitled());
  CHECK((*ends.in.next()).has_value());
  CHECK(ends.in.entitled());
}

}  // namespace
}  // namespace us::replay
