// Native code must retire exactly what is claimed of it. No processor here may have a counter, but
// the software processor counts: it is given the same bytes.
#include <csignal>
#include <cstring>
#include <doctest/doctest.h>

#include "calib/code_runner.h"
#include "hv/boot/load_context.h"
#include "hv/boot_vcpu.h"
#include "hv/machine.h"

namespace us::calib {
namespace {

constexpr uint64_t kCode = 0x10'0000, kHalt = 0x20'0000, kStop = 0x30'0000, kMemory = 0x31'0000;
constexpr uint64_t kStack = 0x9'0000;

class NoWorld final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}
};

template <class T>
void put(hv::Machine& machine, uint64_t at, const T& value) {
  uint8_t bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  REQUIRE(machine.memory().write(GuestPhys(at), {bytes, sizeof bytes}));
}

// Calls the shape's code with so many rounds; returns the conditional branches it retires.
uint64_t branches_of(Shape shape, uint64_t rounds, bool stopped, uint64_t& rounds_done) {
  NoWorld world;
  auto made = hv::Machine::create({.memory_bytes = 8u << 20, .platform = {}}, world);
  REQUIRE(made.ok());
  hv::Machine& machine = **made;
  const NativeShape native = native_shape(shape);
  REQUIRE(machine.memory().write(GuestPhys(kCode), {native.code, native.bytes}));
  put(machine, kHalt, uint8_t{0xf4});
  put(machine, kStop, uint8_t{stopped});
  put(machine, kMemory, kMemory);  // a chain of one link
  put(machine, kStack - 8, kHalt);
  hv::BootState state = hv::long_mode_state(machine.memory(), kCode);
  state.gpr[2] = kMemory;
  state.gpr[4] = kStack - 8;
  state.gpr[6] = kStop;
  state.gpr[7] = rounds;
  hv::enter_boot_state(machine.vcpu(), state);
  hv::MachineStop stop = hv::MachineStop::kLimit;
  for (int i = 0; i < 100 && stop != hv::MachineStop::kIdle; ++i) stop = machine.run({});
  REQUIRE(stop == hv::MachineStop::kIdle);
  rounds_done = machine.vcpu().registers().gpr[0];
  return machine.point().branches.value;
}

}  // namespace

TEST_CASE("native code retires the conditional branches that are claimed of it, round by round") {
  for (size_t i = 0; i < kShapeCount; ++i) {
    const auto shape = static_cast<Shape>(i);
    if (native_shape(shape).calls_kernel) continue;
    INFO(name_of(shape));
    for (const uint64_t rounds : {1u, 2u, 17u}) {
      uint64_t done = 0;
      CHECK(branches_of(shape, rounds, false, done) ==
            rounds * native_shape(shape).round.conditional);
      CHECK(done == rounds);
    }
    uint64_t done = 1;
    CHECK(branches_of(shape, 5, true, done) == 1);
    CHECK(done == 0);
  }
}

TEST_CASE("native code runs here, is stopped by its flag and by its signal, and steps cost time") {
  auto made = native_code();
  REQUIRE(made.ok());
  CodeRunner& code = **made;
  std::atomic<uint8_t> stop{0};
  for (const Shape shape : code.shapes()) {
    INFO(name_of(shape));
    CHECK(code.run(shape, 3, stop) == 3);
  }
  stop = 1;
  CHECK(code.run(Shape::kTaken, 3, stop) == 0);
  stop = 0;
  code.on_alarm([&stop] { stop = 1; });
  std::raise(code.alarm_signal());
  CHECK(stop == 1);
  code.on_alarm({});
  stop = 0;
  const uint64_t before = code.interrupts_seen();
  REQUIRE(code.interrupts(true).ok());
  for (int i = 0; i < 100'000 && code.interrupts_seen() == before; ++i)
    (void)code.run(Shape::kMixed, 1000, stop);
  CHECK(code.interrupts_seen() > before);
  REQUIRE(code.interrupts(false).ok());
  if (!code.no_sibling()) {
    REQUIRE(code.busy_sibling(true).ok());
    CHECK(code.run(Shape::kMixed, 3, stop) == 3);
    REQUIRE(code.busy_sibling(false).ok());
  }
  CHECK(*code.step_ns() > 0);
  CHECK(*code.break_ns() > 0);
}

}  // namespace us::calib
