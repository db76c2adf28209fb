// Two machines of one payload: the first goes where chance takes it and is the truth, exact
// instruction counts and all; the second is made to land there.
#pragma once

#include <memory>
#include <string>

#include "hv/machine.h"
#include "pmu/profile.h"
#include "pmu/random.h"
#include "replay-engine/landing.h"

namespace us::replay::soak {

constexpr const char* kKinds[] = {"loops",      "strings", "jumps",  "calls",
                                  "interrupts", "halts",   "faults", "all"};
constexpr unsigned kKindCount = 8;

// Takes outputs and drops them.
class NoWorld final : public hv::OutputSink {
 public:
  void frame(uint8_t, Bytes) override {}
  void disk(hv::DiskRequest) override {}
  void console(uint8_t, ByteSpan) override {}
};

class Pair {
 public:
  // `counted`: targets come with instruction counts, as the software processor has them; else with
  // RCX and a tie, as hardware has to do.
  Pair(unsigned kind, const pmu::HostProfile& profile, bool counted, uint64_t seed);

  // One landing, and an input after it. Empty: it is right, or it is an overshoot that was reported
  // and really is one (then the truth goes there as well); else what is wrong.
  std::string land_once();

  const LandingCounters& counters() const { return lander_.counters(); }

 private:
  void wander();
  std::string overshot(const LandingResult& result);
  void apply_something();

  NoWorld world_;
  std::unique_ptr<hv::Machine> truth_, follower_;
  Lander lander_;
  const bool counted_;
  const uint64_t reach_;
  pmu::Random random_;
  uint64_t done_ = 0;
};

}  // namespace us::replay::soak
