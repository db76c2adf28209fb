// The modelled counter: ideal unless told otherwise, and each misbehaviour as its quirk describes
// it.
#include "pmu/model.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <vector>

namespace us::pmu {
namespace {

// A processor that only counts.
struct Guest {
  Retired retired;
  void run_to(uint64_t conditional, double taken_share = 1.0) {
    retired.taken +=
        static_cast<uint64_t>(static_cast<double>(conditional - retired.conditional) * taken_share);
    retired.conditional = conditional;
  }
  PmuModel model(const ModelOptions& options) {
    return PmuModel(options, [this] { return retired; });
  }
};

ModelOptions with(const Misbehaviour& bad, const char* skid = "none") {
  ModelOptions options;
  options.skid = *parse_skid(skid);
  options.misbehaviour = bad;
  return options;
}

}  // namespace

TEST_CASE("an ideal model reads what was retired and interrupts exactly at the target") {
  Guest guest;
  PmuModel model = guest.model({});
  guest.run_to(1000);
  CHECK(model.read()->value == 1000);
  REQUIRE(model.arm(Branches(1000), Branches(5000)).ok());
  CHECK(model.interrupt_at() == 5000);
  guest.run_to(5000);
  model.on_interrupt();
  CHECK_FALSE(model.interrupt_at());
  CHECK(model.health().alarms_fired == 1);
  CHECK(model.health().skid_max == 0);
}

TEST_CASE("a model with skid is late by what its distribution draws, the same for the same seed") {
  std::vector<uint64_t> first, second;
  for (std::vector<uint64_t>* lateness : {&first, &second}) {
    Guest guest;
    PmuModel model = guest.model(with({}, "skylake"));
    for (int i = 0; i < 200; ++i) {
      const uint64_t target = guest.retired.conditional + 1000;
      REQUIRE(model.arm(Branches(guest.retired.conditional), Branches(target)).ok());
      guest.run_to(*model.interrupt_at());
      model.on_interrupt();
      lateness->push_back(guest.retired.conditional - target);
    }
    CHECK(model.health().skid_max == *std::max_element(lateness->begin(), lateness->end()));
  }
  CHECK(first == second);
  CHECK(*std::max_element(first.begin(), first.end()) <= 100);
}

TEST_CASE("an alarm not ahead is refused as past, one under the minimum period as too close") {
  Guest guest;
  ModelOptions options;
  options.period_min = 32;
  PmuModel model = guest.model(options);
  guest.run_to(100);
  CHECK(model.arm(Branches(100), Branches(100)).error() == CounterError::kPast);
  CHECK(model.arm(Branches(100), Branches(131)).error() == CounterError::kTooClose);
  CHECK(model.arm(Branches(100), Branches(132)).ok());
}

TEST_CASE("quirk host-interrupt-overcount: host interrupts raise the count and hasten the alarm") {
  Guest guest;
  PmuModel model = guest.model(with({.overcount_one_in = 1, .overcount_branches = 3}));
  guest.run_to(100);
  REQUIRE(model.arm(Branches(100), Branches(1000)).ok());
  model.on_host_interrupt();
  model.on_host_interrupt();
  CHECK(model.read()->value == 106);
  CHECK(model.interrupt_at() == 994);
}

TEST_CASE(
    "quirk smi-leak: the count runs ahead of the guest, and the alarm comes early by as much") {
  Guest guest;
  PmuModel model = guest.model(with({.smi_interval_branches = 10'000, .smi_branches_max = 500}));
  REQUIRE(model.arm(Branches(0), Branches(1'000'000)).ok());
  const uint64_t at = *model.interrupt_at();
  CHECK(at < 1'000'000);
  guest.run_to(at);
  // It counted to the target, by leaks that may have gone past it at once.
  CHECK(model.read()->value >= 1'000'000);
  CHECK(model.read()->value <= 1'000'500);
}

TEST_CASE("quirk minimum-period: a shorter period than the part can do fires late at its minimum") {
  for (const uint64_t period : {uint64_t{32}, uint64_t{128}}) {
    Guest guest;
    PmuModel model = guest.model(with({.hidden_period_min = period}));
    REQUIRE(model.arm(Branches(0), Branches(5)).ok());
    CHECK(model.interrupt_at() == period);
    REQUIRE(model.arm(Branches(0), Branches(500)).ok());
    CHECK(model.interrupt_at() == 500);
  }
}

TEST_CASE("quirk lost-overflow: some alarms never come, and health counts them as missed") {
  Guest guest;
  PmuModel model = guest.model(with({.lose_one_in = 10}));
  uint64_t lost = 0;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t now = guest.retired.conditional;
    REQUIRE(model.arm(Branches(now), Branches(now + 100)).ok());
    guest.run_to(now + 100);
    if (model.interrupt_at()) {
      model.on_interrupt();
    } else {
      ++lost;
      model.disarm();
    }
  }
  CHECK(lost > 50);
  CHECK(lost < 200);
  CHECK(model.health().alarms_missed == lost);
  CHECK(model.health().alarms_fired == 1000 - lost);
}

TEST_CASE("quirk throttling: alarms beyond the allowance wait for the window's end") {
  Guest guest;
  PmuModel model = guest.model(with({.throttle_arms = 3, .throttle_window_branches = 10'000}));
  for (uint64_t i = 0; i < 3; ++i) {
    REQUIRE(model.arm(Branches(i * 100), Branches(i * 100 + 100)).ok());
    CHECK(model.interrupt_at() == i * 100 + 100);
    guest.run_to(i * 100 + 100);
    model.on_interrupt();
  }
  REQUIRE(model.arm(Branches(300), Branches(400)).ok());
  CHECK(model.interrupt_at() == 10'000);
  guest.run_to(10'000);
  model.on_interrupt();
  REQUIRE(model.arm(Branches(10'000), Branches(10'100)).ok());
  CHECK(model.interrupt_at() == 10'100);
}

TEST_CASE("quirk taken-only-event: not-taken branches are missing from the count") {
  Guest guest;
  PmuModel model = guest.model(with({.taken_only = true}));
  guest.run_to(1000, 1.0);
  CHECK(model.read()->value == 1000);
  guest.run_to(2000, 0.0);
  CHECK(model.read()->value == 1000);
}

}  // namespace us::pmu
