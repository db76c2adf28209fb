#include "logchannel/channel/send_queue.h"

#include <doctest/doctest.h>
#include <random>

namespace us::log {
namespace {

// What the queue holds, through pieces as a writer sees them.
Bytes front_of(const SendQueue& queue, int max) {
  std::vector<iovec> pieces(static_cast<size_t>(max));
  const int count = queue.front(pieces.data(), max);
  Bytes out;
  for (int i = 0; i < count; ++i) {
    const auto* data = static_cast<const uint8_t*>(pieces[i].iov_base);
    CHECK(pieces[i].iov_len > 0);
    out.insert(out.end(), data, data + pieces[i].iov_len);
  }
  return out;
}

}  // namespace

TEST_CASE("a queue fed and emptied in random pieces gives every byte once, in order") {
  constexpr uint32_t kSeed = 815;
  MESSAGE("seed ", kSeed);
  std::mt19937 random(kSeed);
  SendQueue queue;
  uint8_t in = 0, out = 0;
  for (int round = 0; round < 1000; ++round) {
    Bytes bytes(random() % (random() % 8 == 0 ? 3 * SendQueue::kChunkBytes : 5000));
    for (uint8_t& byte : bytes) byte = in++;
    const size_t before = queue.size();
    queue.append(bytes);
    REQUIRE(queue.size() == before + bytes.size());
    const Bytes front = front_of(queue, 1 + static_cast<int>(random() % 4));
    REQUIRE(front.empty() == queue.empty());
    const size_t n = front.empty() ? 0 : random() % (front.size() + 1);
    size_t wrong = 0;
    for (size_t i = 0; i < n; ++i) wrong += front[i] == out++ ? 0 : 1;
    REQUIRE(wrong == 0);
    queue.pop(n);
    if (random() % 100 == 0) {
      out += static_cast<uint8_t>(queue.size());
      queue.clear();
      REQUIRE(queue.empty());
      REQUIRE(front_of(queue, 4).empty());
    }
  }
}

}  // namespace us::log
