// The perf backend against the model of perf that pmu's tests have: the same code that would run on
// a processor with a counter, down to the system calls.
#include <doctest/doctest.h>

#include "calib/calibration.h"
#include "calib/perf_experiment_host.h"
#include "calib/report.h"
#include "tests/unit/pmu/perf_model.h"

namespace us::calib {
namespace {

using pmu::test::PerfModel;

// Retires branches in the model, a round at a time, and lets its signals in late.
class ModelCode final : public CodeRunner {
 public:
  explicit ModelCode(PerfModel& perf) : perf_(perf) {}

  uint64_t late_rounds = 0;   // after the overflow's round, until the signal comes
  uint64_t later_rounds = 0;  // the same, more of it while the sibling is busy
  bool has_sibling = true;
  uint64_t too_many_one_in = 0;  // an interrupt in so many adds a count
  bool count_not_taken = true;

  std::span<const Shape> shapes() const override { return kShapes; }
  pmu::Retired round(Shape shape) const override {
    switch (shape) {
      case Shape::kTaken: return {kRound, kRound};
      case Shape::kNotTaken: return {kRound, 0};
      default: return {kRound, kRound / 2};
    }
  }
  pmu::Retired stop() const override { return {1, 1}; }
  uint64_t run(Shape shape, uint64_t rounds, const std::atomic<uint8_t>& stop) override {
    for (uint64_t done = 0; done < rounds; ++done) {
      if (stop != 0) {
        perf_.run(1);
        return done;
      }
      perf_.run(count_not_taken ? kRound : round(shape).taken);
      disturb(done);
      deliver();
    }
    return rounds;
  }
  int alarm_signal() const override { return 40; }
  void on_alarm(std::function<void()> handler) override { handler_ = std::move(handler); }
  Status interrupts(bool on) override {
    interrupted_ = on;
    return Done{};
  }
  Status busy_sibling(bool busy) override {
    US_CHECK(has_sibling);
    sibling_busy_ = busy;
    return Done{};
  }
  std::optional<std::string> no_sibling() const override {
    return has_sibling ? std::nullopt : std::optional<std::string>("its core is its own");
  }
  uint64_t interrupts_seen() const override { return interrupts_; }
  std::optional<double> step_ns() override { return 1000; }
  std::optional<double> break_ns() override { return 1500; }

  static constexpr uint64_t kRound = 10;

 private:
  static constexpr Shape kShapes[] = {Shape::kTaken, Shape::kNotTaken, Shape::kMixed};

  void disturb(uint64_t round) {
    if (!interrupted_ || round % 100 != 0) return;
    ++interrupts_;
    if (too_many_one_in != 0 && interrupts_ % too_many_one_in == 0) perf_.run(1);
  }
  void deliver() {
    if (perf_.signals != taken_) {
      taken_ = perf_.signals;
      due_in_ = late_rounds + (sibling_busy_ ? later_rounds : 0) + 1;
    }
    if (due_in_ != 0 && --due_in_ == 0 && handler_) handler_();
  }

  PerfModel& perf_;
  std::function<void()> handler_;
  bool interrupted_ = false, sibling_busy_ = false;
  uint64_t interrupts_ = 0, due_in_ = 0;
  int taken_ = 0;
};

const pmu::EventRow& ice_lake() {
  const pmu::EventRow* row = pmu::find_event({"GenuineIntel", 6, 0x6a, 6, pmu::CoreType::kOnly});
  REQUIRE(row != nullptr);
  return *row;
}

std::unique_ptr<PerfExperimentHost> opened(PerfModel& perf, ModelCode& code) {
  auto host = PerfExperimentHost::open(perf, ice_lake(), code);
  REQUIRE(host.ok());
  return std::move(host).value();
}

constexpr Amounts kFew{.skid_samples = 2400,
                       .pieces = 100,
                       .piece_branches = 20'000,
                       .alarms = 20,
                       .period_samples = 300};

Measurements campaign(PerfExperimentHost& host) {
  Campaign campaign({.host = host, .amounts = kFew, .machine = {}}, 1);
  while (!campaign.finished()) REQUIRE(campaign.next().ok());
  return campaign.measured();
}

}  // namespace

TEST_CASE("perf is asked for events of this thread's user mode, pinned, and nothing else") {
  PerfModel perf;
  ModelCode code(perf);
  {
    const auto host = opened(perf, code);
    REQUIRE(perf.opened.size() == 2);
    for (const perf_event_attr& attr : perf.opened) {
      CHECK(pmu::counts_user_only(attr));
      CHECK(attr.pinned == 1);
      CHECK(attr.config == 0x11c4);
    }
    CHECK(host->own_branches() == 0);
  }
  CHECK(perf.open_files() == 0);
}

TEST_CASE("what perf refuses is the refusal of the counter, with exit 3") {
  PerfModel perf;
  perf.open_error = ENOENT;
  ModelCode code(perf);
  const auto host = PerfExperimentHost::open(perf, ice_lake(), code);
  REQUIRE_FALSE(host.ok());
  CHECK(host.error().id == "PMU-018");
  CHECK(host.error().exit_code == ExitCode::kHostCannot);
}

TEST_CASE("code is counted exactly, and an alarm comes as late as its signal does") {
  PerfModel perf;
  ModelCode code(perf);
  code.late_rounds = 3;
  const auto host = opened(perf, code);
  const auto counted = host->count(Shape::kNotTaken, 5000, Disturbance::kNone);
  REQUIRE(counted.ok());
  CHECK(counted->retired.conditional == 5000);
  CHECK(counted->counted == 5000);
  for (const uint64_t period : {100u, 1000u}) {
    const auto alarm = host->alarm(Shape::kMixed, period, 10'000);
    REQUIRE(alarm.ok());
    REQUIRE(alarm->came_after.has_value());
    CHECK(*alarm->came_after == period + 3 * ModelCode::kRound);
  }
}

TEST_CASE("an alarm that the kernel throttles away never comes, and is not waited for for ever") {
  PerfModel perf;
  ModelCode code(perf);
  const auto host = opened(perf, code);
  perf.throttled = true;
  const auto alarm = host->alarm(Shape::kMixed, 1000, 10'000);
  REQUIRE(alarm.ok());
  CHECK_FALSE(alarm->came_after.has_value());
}

TEST_CASE("a counter that is taken away is CAL-006") {
  PerfModel perf;
  ModelCode code(perf);
  const auto host = opened(perf, code);
  perf.take_counters();
  const auto counted = host->count(Shape::kTaken, 1000, Disturbance::kNone);
  REQUIRE_FALSE(counted.ok());
  CHECK(counted.error().id == "CAL-006");
  const auto alarm = host->alarm(Shape::kTaken, 1000, 1000);
  REQUIRE_FALSE(alarm.ok());
  CHECK(alarm.error().id == "CAL-006");
}

TEST_CASE("a campaign over perf gives an exact profile with the margin just above the skid") {
  PerfModel perf;
  ModelCode code(perf);
  code.late_rounds = 4;
  const auto host = opened(perf, code);
  const Measurements measured = campaign(*host);
  const auto found = analyse(measured, {});
  REQUIRE(found.has_value());
  CHECK(found->exact);
  CHECK(found->diagnoses.empty());
  // The signal comes within the round in which the period ends, four rounds later.
  CHECK(found->choice.margin >= 41);
  CHECK(found->choice.margin <= 51);
  CHECK(found->costs_measured);
  CHECK(found->costs.stop_ns == 1500);
  const pmu::HostProfile profile = profile_of(*found, measured, *host, std::nullopt, "2026-11-30");
  CHECK(profile.event == "BR_INST_RETIRED:COND");
  CHECK(profile.config == 0x11c4);
  CHECK(profile.confidence == pmu::Confidence::kMeasured);
  CHECK(profile.step_ns == 1000);
  CHECK_FALSE(profile.host.vendor.empty());
}

TEST_CASE(
    "over perf, interrupts that add to the count and a code that counts taken branches are named") {
  PerfModel perf;
  ModelCode code(perf);
  const auto host = opened(perf, code);
  code.too_many_one_in = 3;
  const auto overcount = analyse(campaign(*host), {});
  REQUIRE(overcount->diagnoses.size() == 1);
  CHECK(overcount->diagnoses[0].quirk == pmu::Quirk::kHostInterruptOvercount);
  CHECK_FALSE(overcount->exact);
  code.too_many_one_in = 0;
  code.count_not_taken = false;
  const auto taken_only = analyse(campaign(*host), {});
  REQUIRE(taken_only->diagnoses.size() == 1);
  CHECK(taken_only->diagnoses[0].quirk == pmu::Quirk::kTakenOnlyEvent);
}

TEST_CASE("a busy sibling that makes alarms later decides the margin, and is named") {
  PerfModel perf;
  ModelCode code(perf);
  code.late_rounds = 4;
  code.later_rounds = 6;
  const auto host = opened(perf, code);
  const Measurements measured = campaign(*host);
  CHECK(measured.skipped.empty());
  CHECK(measured.skid.at("mixed+interrupts").late.max() < 60);
  const auto found = analyse(measured, {});
  REQUIRE(found.has_value());
  CHECK(found->skid_of == "mixed+busy-sibling");
  CHECK(found->choice.margin > 100);
}

TEST_CASE("where no core is shared the row says so, and nothing is measured of it") {
  PerfModel perf;
  ModelCode code(perf);
  code.has_sibling = false;
  const auto host = opened(perf, code);
  const Measurements measured = campaign(*host);
  CHECK(measured.skid.count("mixed+busy-sibling") == 0);
  CHECK(measured.skid.count("mixed+interrupts") == 1);
  CHECK(measured.skipped.at("skid mixed+busy-sibling") == "its core is its own");
  const auto found = analyse(measured, {});
  const pmu::HostProfile profile = profile_of(*found, measured, *host, std::nullopt, "2026-12-01");
  CHECK(report_text(*found, measured, profile, true)
            .find("skid mixed+busy-sibling: its core is its own") != std::string::npos);
  CHECK(report_json(*found, measured, profile, "perf", true)["skipped"].size() == 1);
}

TEST_CASE("a campaign over perf samples this host's TSC between its chunks, and writes its rate") {
  PerfModel perf;
  ModelCode code(perf);
  const auto host = opened(perf, code);
  const Measurements measured = campaign(*host);
  REQUIRE(measured.tsc.size() == 1);
  CHECK(measured.tsc[0].size() > 100);
  const auto found = analyse(measured, {});
  const pmu::HostProfile profile = profile_of(*found, measured, *host, std::nullopt, "2026-12-01");
  REQUIRE(profile.tsc.has_value());
  CHECK(profile.tsc->hz > 1e8);
  CHECK(profile.tsc->hz < 1e11);
  CHECK(profile.tsc->hz_low <= profile.tsc->hz);
  CHECK(profile.tsc->hz_high >= profile.tsc->hz);
  CHECK(*measurements_from_json(to_json(measured)) == measured);
}

}  // namespace us::calib
