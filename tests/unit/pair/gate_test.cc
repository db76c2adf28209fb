// The output rule, output by output.
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "replay-engine/pair/output_gate.h"

namespace us::replay {
namespace {

using Mode = OutputGate::Mode;

// Writes down what leaves.
class World final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes frame) override { seen.push_back("frame " + text(frame)); }
  void disk(hv::DiskRequest request) override {
    seen.push_back(std::string(request.op == hv::DiskOp::kRead ? "read " : "write ") +
                   std::to_string(request.request));
  }
  void console(uint8_t, ByteSpan bytes) override {
    seen.push_back("console " + std::string(bytes.begin(), bytes.end()));
  }
  bool full() const override { return is_full; }
  std::vector<std::string> seen;
  bool is_full = false;

 private:
  static std::string text(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }
};

struct Fixture {
  World world;
  std::chrono::nanoseconds now{0};
  int urgent = 0;
  OutputGate gate{[this] { return now; }, [this] { ++urgent; }};
  explicit Fixture(Mode mode) {
    gate.connect(&world);
    gate.set_mode(mode);
  }
  void frame(const std::string& text) { gate.frame(0, {text.begin(), text.end()}); }
  void console(const std::string& text) {
    gate.console(0, ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  }
  void write(uint32_t id, uint64_t offset, size_t bytes) {
    gate.disk({.request = id,
               .op = hv::DiskOp::kWrite,
               .offset = offset,
               .length = bytes,
               .data = Bytes(bytes)});
  }
  void read(uint32_t id, uint64_t offset, size_t bytes) {
    gate.disk({.request = id, .op = hv::DiskOp::kRead, .offset = offset, .length = bytes});
  }
};

TEST_CASE("a gate in front of a full world is full, and one in front of none is not") {
  Fixture f(Mode::kHold);
  CHECK_FALSE(f.gate.full());
  f.world.is_full = true;
  CHECK(f.gate.full());
  f.gate.connect(nullptr);
  CHECK_FALSE(f.gate.full());
}

TEST_CASE("an output leaves when the record after it is acknowledged, not before") {
  Fixture f(Mode::kHold);
  f.frame("a");
  f.gate.covered(LogPosition(1000));  // nothing says yet which record follows it
  CHECK(f.world.seen.empty());
  CHECK(f.gate.close_batch(LogPosition(1010)));
  f.gate.covered(LogPosition(1009));
  CHECK(f.world.seen.empty());
  f.gate.covered(LogPosition(1010));
  CHECK(f.world.seen == std::vector<std::string>{"frame a"});
}

TEST_CASE("outputs of several records leave in the order they were produced") {
  Fixture f(Mode::kHold);
  f.frame("a");
  f.console("b");
  f.gate.close_batch(LogPosition(10));
  f.write(1, 0, 512);
  f.gate.close_batch(LogPosition(20));
  f.frame("c");
  f.gate.covered(LogPosition(20));
  CHECK(f.world.seen == std::vector<std::string>{"frame a", "console b", "write 1"});
  CHECK(f.gate.counters().held == 1);
}

TEST_CASE("a read passes at once, but waits behind a waiting write to the same bytes") {
  Fixture f(Mode::kHold);
  f.write(1, 4096, 4096);
  f.read(2, 0, 4096);
  f.read(3, 8191, 1);
  f.read(4, 8192, 4096);
  CHECK(f.world.seen == std::vector<std::string>{"read 2", "read 4"});
  f.gate.close_batch(LogPosition(5));
  f.gate.covered(LogPosition(5));
  CHECK(f.world.seen == std::vector<std::string>{"read 2", "read 4", "write 1", "read 3"});
}

TEST_CASE("frames and writes ask for a record once a batch, text only when the guest idles") {
  Fixture f(Mode::kHold);
  f.console("x");
  CHECK(f.urgent == 0);
  CHECK_FALSE(f.gate.wants_record(false));
  CHECK(f.gate.wants_record(true));
  f.frame("a");
  f.frame("b");
  CHECK(f.urgent == 1);
  CHECK(f.gate.wants_record(false));
  f.gate.close_batch(LogPosition(1));
  CHECK_FALSE(f.gate.wants_record(true));
  f.frame("c");
  CHECK(f.urgent == 2);
}

TEST_CASE("opening the gate lets everything out in order, and what comes later at once") {
  Fixture f(Mode::kHold);
  f.frame("a");
  f.gate.close_batch(LogPosition(7));
  f.frame("b");
  f.gate.set_mode(Mode::kThrough);
  f.frame("c");
  CHECK(f.world.seen == std::vector<std::string>{"frame a", "frame b", "frame c"});
  CHECK(f.gate.counters().held == 0);
}

TEST_CASE("positions of an old log mean nothing after the gate was open") {
  Fixture f(Mode::kHold);
  f.frame("a");
  f.gate.close_batch(LogPosition(100));
  f.gate.covered(LogPosition(100));
  f.gate.set_mode(Mode::kThrough);
  f.gate.set_mode(Mode::kHold);
  f.frame("b");
  f.gate.close_batch(LogPosition(50));
  CHECK(f.world.seen.size() == 1);
  f.gate.covered(LogPosition(50));
  CHECK(f.world.seen.size() == 2);
}

TEST_CASE("a shadow forgets what the primary released and sends the rest when it goes live") {
  Fixture f(Mode::kShadow);
  f.frame("a");
  f.write(1, 0, 512);
  f.gate.close_batch(LogPosition(10));
  f.console("b");
  f.gate.close_batch(LogPosition(20));
  f.frame("c");
  f.gate.covered(LogPosition(10));
  CHECK(f.world.seen.empty());
  f.gate.set_mode(Mode::kThrough);
  CHECK(f.world.seen == std::vector<std::string>{"console b", "frame c"});
}

TEST_CASE("a full shadow forgets its oldest outputs and counts them") {
  Fixture f(Mode::kShadow);
  const Bytes big(1 << 20);
  for (int i = 0; i < 80; ++i) {
    f.gate.frame(0, big);
    f.gate.close_batch(LogPosition(static_cast<uint64_t>(i) + 1));
  }
  CHECK(f.gate.counters().held_bytes <= OutputGate::kBytesMax);
  CHECK(f.gate.counters().dropped == 80 - 64);
}

TEST_CASE("a shut gate lets nothing out, whatever is acknowledged") {
  Fixture f(Mode::kHold);
  f.frame("a");
  f.gate.close_batch(LogPosition(1));
  f.gate.set_mode(Mode::kShut);
  f.frame("b");
  f.gate.covered(LogPosition(99));
  CHECK(f.world.seen.empty());
}

TEST_CASE("hold times are measured from production to release") {
  Fixture f(Mode::kHold);
  for (int i = 1; i <= 100; ++i) {
    f.frame("x");
    f.gate.close_batch(LogPosition(static_cast<uint64_t>(i)));
    f.now += std::chrono::microseconds(i);
    f.gate.covered(LogPosition(static_cast<uint64_t>(i)));
  }
  const GateCounters c = f.gate.counters();
  CHECK(c.released == 100);
  CHECK(c.max == std::chrono::microseconds(100));
  CHECK(c.p50 >= std::chrono::microseconds(50));
  CHECK(c.p50 < std::chrono::microseconds(57));
  CHECK(c.p99 >= std::chrono::microseconds(99));
}

}  // namespace
}  // namespace us::replay
