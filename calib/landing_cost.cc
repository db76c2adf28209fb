#include "calib/landing_cost.h"

#include <chrono>

#include "base/check.h"
#include "hv/boot/load_context.h"
#include "hv/boot_vcpu.h"
#include "hv/machine.h"
#include "pmu/random.h"
#include "replay-engine/landing.h"

extern "C" const uint8_t landing_guest_begin[], landing_guest_end[];

namespace us::calib {
namespace {

constexpr uint64_t kEntry = 0x10'0000;
constexpr uint64_t kDistanceSpread = 2000;  // branches
constexpr uint64_t kStepsMax = 40;          // from a branch to the point: targets are anywhere

class NoWorld final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}
};

std::unique_ptr<hv::Machine> guest(NoWorld& world) {
  auto made = hv::Machine::create({.memory_bytes = 8u << 20, .platform = {}}, world);
  US_CHECK(made.ok(), "no machine of 8 MiB");
  std::unique_ptr<hv::Machine> machine = std::move(made).value();
  US_CHECK(machine->memory().write(GuestPhys(kEntry), {landing_guest_begin, landing_guest_end}));
  hv::enter_boot_state(machine->vcpu(), hv::long_mode_state(machine->memory(), kEntry));
  return machine;
}

void run_to(hv::Machine& machine, Branches branches) {
  while (machine.point().branches < branches) (void)machine.run({.alarm = branches});
}

}  // namespace

LandingTally measure_landings(const LandingBench& bench, uint64_t margin, uint64_t landings,
                              uint64_t seed) {
  NoWorld world;
  const auto truth = guest(world), follower = guest(world);
  pmu::ModelSettings model = bench.model;
  model.seed = seed;
  replay::Lander lander(replay::landing_profile({.event = "model",
                                                 .margin = margin,
                                                 .minimum_period = bench.minimum_period,
                                                 .exact = true,
                                                 .model = model},
                                                *follower));
  pmu::Random random(seed ^ 0x6c616e64);
  for (uint64_t i = 0; i < landings; ++i) {
    const uint64_t far = bench.distance_min + random.below(kDistanceSpread);
    run_to(*truth, truth->point().branches + far);
    for (uint64_t steps = random.below(kStepsMax); steps > 0; --steps) (void)truth->step();
    const replay::LandingResult result = lander.land(*follower, truth->point());
    if (result.ok()) continue;
    // Too late, or a counter that miscounts: the other machine is the one to follow now.
    replay::Lander exact;
    hv::Machine& behind =
        truth->point().instructions < follower->point().instructions ? *truth : *follower;
    hv::Machine& ahead = &behind == truth.get() ? *follower : *truth;
    US_CHECK(exact.land(behind, ahead.point()).ok(), "two machines of one guest part");
  }
  const replay::LandingCounters& c = lander.counters();
  return {.landings = c.landings, .alarms = c.alarms, .stops = c.steps, .overshoots = c.overshoots};
}

double measure_soft_step_ns(uint64_t steps) {
  NoWorld world;
  const auto machine = guest(world);
  run_to(*machine, Branches(10'000));
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < steps; ++i) (void)machine->step();
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  return took.count() / static_cast<double>(steps);
}

}  // namespace us::calib
