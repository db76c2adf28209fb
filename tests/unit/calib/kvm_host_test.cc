// The kvm backend against the models of KVM and perf: a guest runs the very bytes of the native
// shapes, down to the system calls.
#include <doctest/doctest.h>

#include "calib/calibration.h"
#include "calib/kvm_experiment_host.h"
#include "hv/kvm/model/kvm_model.h"
#include "hv/kvm/model/system_model.h"
#include "hv/kvm/model/trace_model.h"

namespace us::calib {
namespace {

using hv::kvm::model::KvmModelOptions;
using hv::kvm::model::PerfOptions;

struct Modelled {
  explicit Modelled(const PerfOptions& counter = {},
                    const KvmModelOptions& options = {.seed = 3, .time_exits = true})
      : perf(counter), kvm(options, &perf) {}
  ~Modelled() { CHECK(kvm.violations == std::vector<std::string>{}); }

  hv::kvm::Host host() { return {system, kvm, perf, trace}; }
  std::unique_ptr<KvmExperimentHost> open(const KvmExperimentOptions& options = {}) {
    auto made = KvmExperimentHost::open(host(), options);
    REQUIRE(made.ok());
    return std::move(made).value();
  }

  hv::kvm::model::SystemModel system;
  hv::kvm::model::PerfModel perf;
  hv::kvm::model::TraceModel trace{{.there = false}};
  hv::kvm::model::KvmModel kvm;
};

pmu::SkidModel skid_of(const char* text) {
  const auto skid = pmu::parse_skid(text);
  REQUIRE(skid.ok());
  return *skid;
}

constexpr Amounts kFew{.skid_samples = 1400,
                       .pieces = 20,
                       .piece_branches = 10'000,
                       .alarms = 20,
                       .period_samples = 200};
constexpr Amounts kFewSteps{
    .skid_samples = 960, .pieces = 10, .piece_branches = 400, .alarms = 10, .period_samples = 20};

Measurements campaign(KvmExperimentHost& host, const Amounts& amounts = kFew) {
  Campaign campaign({.host = host, .amounts = amounts, .machine = {}}, 1);
  while (!campaign.finished()) REQUIRE(campaign.next().ok());
  return campaign.measured();
}

}  // namespace

TEST_CASE("every shape is counted exactly in a guest, in quiet and amid exits") {
  // Signals that mean nothing end its runs, too.
  Modelled model({}, {.seed = 3,
                      .interrupt_entry_one_in = 4,
                      .interrupt_after_branches = 3000,
                      .time_exits = true});
  const auto host = model.open();
  for (const Shape shape : host->shapes()) {
    for (const Disturbance disturbance : {Disturbance::kNone, Disturbance::kInterrupts}) {
      INFO(name_of(shape), " ", name_of(disturbance));
      const auto counted = host->count(shape, 50'000, disturbance);
      REQUIRE(counted.ok());
      CHECK(counted->retired.conditional > 49'000);
      CHECK(counted->counted == counted->retired.conditional);
      CHECK((counted->interrupts > 20) == (disturbance == Disturbance::kInterrupts));
    }
  }
}

TEST_CASE("an alarm in a guest comes after its period and the skid, whatever else ends its runs") {
  Modelled model(
      {.skid = skid_of("fixed:7")},
      {.seed = 3, .interrupt_entry_one_in = 4, .interrupt_after_branches = 50, .time_exits = true});
  const auto host = model.open();
  for (const Disturbance disturbance : {Disturbance::kNone, Disturbance::kInterrupts}) {
    REQUIRE(host->disturb(disturbance).ok());
    for (const Shape shape : host->shapes()) {
      for (const uint64_t period : {1u, 31u, 1000u}) {
        INFO(name_of(shape), " ", name_of(disturbance), ", period ", period);
        const auto alarm = host->alarm(shape, period, 10'000);
        REQUIRE(alarm.ok());
        CHECK(alarm->came_after == period + 7);
      }
    }
  }
}

TEST_CASE("an alarm of a guest's that is throttled away never comes, and the next one does") {
  Modelled model({.throttle_one_in = 1});
  const auto host = model.open();
  for (int i = 0; i < 3; ++i) {
    const auto alarm = host->alarm(Shape::kMixed, 500, 20'000);
    REQUIRE(alarm.ok());
    CHECK_FALSE(alarm->came_after.has_value());
  }
  CHECK(model.perf.throttled == 3);
}

TEST_CASE("a guest's campaign gives an exact profile with the margin just above the skid") {
  Modelled model({.skid = skid_of("uniform:0:60")});
  const auto host = model.open();
  const Measurements measured = campaign(*host);
  CHECK(measured.skid.count("mixed+interrupts") == 1);
  CHECK(measured.skipped.count("skid mixed+busy-sibling") == 1);
  const auto found = analyse(measured, {});
  REQUIRE(found.has_value());
  CHECK(found->exact);
  CHECK(found->diagnoses.empty());
  CHECK(found->choice.margin >= 61);
  CHECK(found->choice.margin <= 130);
  CHECK(found->minimum_period == 1);
  CHECK(found->costs_measured);
  CHECK(*measured.costs.break_ns > 0);
  const pmu::HostProfile profile = profile_of(*found, measured, *host, std::nullopt, "2026-12-01");
  CHECK(profile.event == "BR_INST_RETIRED:COND");
  CHECK(profile.config == 0x11c4);
  CHECK(profile.confidence == pmu::Confidence::kMeasured);
  CHECK(*profile.step_ns > 0);
}

TEST_CASE("a guest's counter that counts its own interrupts is named host-interrupt-overcount") {
  Modelled model({.overcount_one_in = 10});
  const auto host = model.open();
  const auto found = analyse(campaign(*host), {});
  REQUIRE(found.has_value());
  CHECK_FALSE(found->exact);
  REQUIRE(found->diagnoses.size() == 1);
  CHECK(found->diagnoses[0].quirk == pmu::Quirk::kHostInterruptOvercount);
}

TEST_CASE("a guest's counter that is taken away is KVM-008") {
  Modelled model;
  const auto host = model.open();
  model.perf.take_counters();
  const auto counted = host->count(Shape::kTaken, 1000, Disturbance::kNone);
  REQUIRE_FALSE(counted.ok());
  CHECK(counted.error().id == "KVM-008");
  const auto alarm = host->alarm(Shape::kTaken, 1000, 1000);
  REQUIRE_FALSE(alarm.ok());
  CHECK(alarm.error().id == "KVM-008");
}

TEST_CASE("what a host lacks for guests is its own error: no counter, no event, no /dev/kvm") {
  const auto error_of = [](Modelled& model) {
    const auto made = KvmExperimentHost::open(model.host(), {});
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().exit_code == ExitCode::kHostCannot);
    return made.error().id;
  };
  Modelled no_counter({.open_error = ENOENT});
  CHECK(error_of(no_counter) == "PMU-018");
  Modelled zen;
  zen.system.processor = {"AuthenticAMD", 25, 1, 1, pmu::CoreType::kOnly};
  CHECK(error_of(zen) == "PMU-017");
  Modelled no_kvm({}, {.open_error = ENOENT});
  CHECK(error_of(no_kvm) == "KVM-001");
}

TEST_CASE("by steps a guest is counted exactly and stopped at the very branch, without a counter") {
  Modelled model({.open_error = ENOENT}, {.seed = 3});
  const auto host = model.open({.by_steps = true});
  const Measurements measured = campaign(*host, kFewSteps);
  const auto found = analyse(measured, {});
  REQUIRE(found.has_value());
  CHECK(found->exact);
  for (const Diagnosis& d : found->diagnoses) FAIL_CHECK(d.evidence);
  CHECK(found->tail.kind == TailKind::kCeiling);
  CHECK(found->choice.margin == 1);
  const pmu::HostProfile profile = profile_of(*found, measured, *host, std::nullopt, "2026-12-01");
  CHECK(profile.event == "steps");
  CHECK(*profile.step_ns > 0);
  CHECK_FALSE(profile.read_ns.has_value());
}

}  // namespace us::calib
