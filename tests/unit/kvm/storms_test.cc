// The counter held against exits of each kind, on the model.
#include <doctest/doctest.h>

#include "hv/kvm/exit_storms.h"
#include "tests/unit/kvm/rig.h"

namespace us::hv::kvm::test {
namespace {

struct Stormy {
  explicit Stormy(const model::PerfOptions& options)
      : perf(options), kvm({.seed = 3, .time_exits = true, .monitor_steps = true}, &perf) {
    wanted.counter = [this](int signal) -> Result<std::unique_ptr<pmu::Counter>> {
      return pmu::PerfCounter::open(perf, some_row(), {.signal = signal});
    };
  }
  model::PerfModel perf;
  model::KvmModel kvm;
  KvmOptions wanted;
};

TEST_CASE("an exact counter is found exact under every kind of exit, its lateness measured") {
  const auto skid = pmu::parse_skid("fixed:7");
  REQUIRE(skid.ok());
  for (const ExitKind kind : all_exit_kinds()) {
    CAPTURE(name_of(kind));
    Stormy host({.skid = *skid});
    const auto result = run_storm(host.kvm, host.wanted, kind, 500);
    REQUIRE(result.ok());
    CHECK(result->exits >= 500);
    CHECK(result->expected > 100);
    CHECK(result->exact());
    CHECK(result->late_max == (kind == ExitKind::kAlarms ? 7 : 0));
    CHECK(host.kvm.violations == std::vector<std::string>{});
  }
}

TEST_CASE("a counter that counts its own interrupts is found out by alarms") {
  Stormy host({.overcount_one_in = 10});
  const auto result = run_storm(host.kvm, host.wanted, ExitKind::kAlarms, 500);
  REQUIRE(result.ok());
  CHECK(!result->exact());
  CHECK(result->counted > result->expected);
}

TEST_CASE("a host without a counter fails the measurement with the counter's error") {
  Stormy host({.open_error = ENOENT});
  const auto result = run_storm(host.kvm, host.wanted, ExitKind::kSteps, 10);
  REQUIRE(!result.ok());
  CHECK(result.error().id == "PMU-018");
}

}  // namespace
}  // namespace us::hv::kvm::test
