// Much data, a slow reader, bounded memory.
#include <cstring>
#include <doctest/doctest.h>
#include <random>
#include <thread>

#include "logchannel/channel/link.h"
#include "pair.h"
#include "pki.h"

namespace us::log {
namespace {

constexpr uint32_t kSeed = 4711;
constexpr size_t kTotal = 64 * 1024 * 1024;
constexpr size_t kWaitingMax = 4 * 1024 * 1024;
constexpr size_t kPauseEvery = 8 * 1024 * 1024;

// The sizes of frames, the same on both sides.
class Sizes {
 public:
  size_t next() {
    const uint32_t draw = random_();
    switch (draw % 8) {
      case 0: return 8 + draw / 8 % 64;
      case 1: return 8 + draw / 8 % (2 * 1024 * 1024);
      default: return 8 + draw / 8 % (128 * 1024);
    }
  }

 private:
  std::mt19937 random_{kSeed};
};

// Frame number `n` of `size` bytes: its number, then a pattern of it.
Bytes frame(uint64_t n, size_t size) {
  Bytes bytes(size);
  std::memcpy(bytes.data(), &n, sizeof n);
  uint64_t state = n * 0x9e3779b97f4a7c15 + 1;
  for (size_t i = sizeof n; i < size; ++i) {
    if (i % 8 == 0) state = state * 6364136223846793005 + 1442695040888963407;
    bytes[i] = static_cast<uint8_t>(state >> (i % 8 * 8));
  }
  return bytes;
}

void send_all(Link& link) {
  Sizes sizes;
  size_t sent = 0;
  for (uint64_t n = 0; sent < kTotal; ++n) {
    const Bytes bytes = frame(n, sizes.next());
    // As a primary is held back by what is not acknowledged.
    while (link.counters().bytes_waiting > kWaitingMax) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    link.send_frame(bytes);
    sent += bytes.size();
  }
}

}  // namespace

TEST_CASE("64 MiB of frames arrive whole and in order at a reader that keeps stopping") {
  MESSAGE("seed ", kSeed);
  const TempFolder folder;
  Authority("authority").issue(folder, "both");
  for (const Credentials& credentials : {plaintext(), psk(), certificates(folder)}) {
    Pair pair(credentials);
    pair.greet();
    std::atomic<bool> all_sent{false};
    std::thread sender([&] {
      send_all(*pair.to_secondary);
      all_sent = true;
    });
    Sizes sizes;
    size_t received = 0, until_pause = kPauseEvery, pauses = 0, waited = 0;
    for (uint64_t n = 0; received < kTotal; ++n) {
      const auto message = pair.secondary.messages.take();
      REQUIRE(message.has_value());
      const Bytes& bytes = std::get<FrameMessage>(*message).frame;
      REQUIRE(bytes == frame(n, sizes.next()));
      received += bytes.size();
      if (received < until_pause) continue;
      until_pause += kPauseEvery;
      pair.to_primary->pause_reading(true);
      ++pauses;
      // Until the sender feels it.
      while (pair.to_secondary->counters().bytes_waiting == 0 && !all_sent) {
        std::this_thread::yield();
      }
      if (pair.to_secondary->counters().bytes_waiting != 0) ++waited;
      pair.to_primary->pause_reading(false);
    }
    sender.join();
    CHECK(pauses >= 7);
    CHECK(waited >= 1);
    CHECK(pair.secondary.messages.size() == 0);
    CHECK(pair.to_secondary->counters().bytes_waiting == 0);
  }
}

TEST_CASE("a side that stopped reading keeps one message and one buffer, whatever the peer sends") {
  for (const Credentials& credentials : {plaintext(), psk()}) {
    Pair pair(credentials);
    pair.greet();
    pair.to_primary->pause_reading(true);
    const uint64_t before = pair.to_primary->counters().bytes_received;
    const Bytes bytes(1024 * 1024, 7);
    // More than the kernel takes: then the rest waits on the sender's side.
    size_t sent = 0;
    for (; sent < 64 || pair.to_secondary->counters().bytes_waiting == 0; ++sent) {
      pair.to_secondary->send_frame(bytes);
    }
    CHECK(pair.to_primary->counters().bytes_received - before <= 256 * 1024);
    CHECK(pair.secondary.messages.size() <= 1);
    pair.to_primary->pause_reading(false);
    for (size_t i = 0; i < sent; ++i) {
      REQUIRE(pair.secondary.messages.take() == Message(FrameMessage{bytes}));
    }
  }
}

}  // namespace us::log
