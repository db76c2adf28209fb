#include "calib/campaign.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>

#include "calib/calibration.h"
#include "calib/compare.h"
#include "calib/plot.h"
#include "calib/report.h"
#include "calib/soft_host.h"
#include "calib/state_file.h"

namespace us::calib {
namespace {

constexpr Amounts kFew{.skid_samples = 20'000,
                       .pieces = 100,
                       .piece_branches = 20'000,
                       .alarms = 200,
                       .period_samples = 500,
                       .landings = 8};

pmu::ModelSettings model(const char* skid) {
  const auto parsed = pmu::parse_skid(skid);
  REQUIRE(parsed.ok());
  return {.skid = *parsed};
}

// Everything measured from the chunk after the first `done` on.
Measurements run(const pmu::ModelSettings& settings, uint64_t seed, uint64_t done = 0,
                 Measurements before = {}, uint64_t chunks = ~0ull) {
  SoftHost host(settings);
  Campaign campaign({.host = host, .amounts = kFew, .machine = settings}, seed);
  campaign.resume(done, std::move(before));
  for (uint64_t i = 0; i < chunks && !campaign.finished(); ++i) REQUIRE(campaign.next().ok());
  return campaign.measured();
}

// Times are this host's and vary.
Measurements without_costs(Measurements measured) {
  measured.costs = {};
  return measured;
}

pmu::HostProfile profile_with(const char* skid, uint64_t seed) {
  const pmu::ModelSettings settings = model(skid);
  const Measurements measured = run(settings, seed);
  const auto found = analyse(measured, {});
  REQUIRE(found.has_value());
  return profile_of(*found, measured, SoftHost(settings), settings, "2026-11-30");
}

class TemporaryFile {
 public:
  TemporaryFile()
      : path_(std::filesystem::temp_directory_path() / fmt::format("calib-{}.state", ::getpid())) {}
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST_CASE(
    "a campaign that was stopped anywhere and resumed ends with the figures it would have had") {
  const pmu::ModelSettings settings = model("skylake");
  const Measurements whole = without_costs(run(settings, 5));
  for (const uint64_t stopped_after : {1u, 30u, 95u, 180u}) {
    const Measurements part = run(settings, 5, 0, {}, stopped_after);
    CHECK(without_costs(run(settings, 5, stopped_after, part)) == whole);
  }
  CHECK(without_costs(run(settings, 6)) != whole);
}

TEST_CASE(
    "a state file gives back what was kept, and nothing of another campaign or when damaged") {
  const TemporaryFile file;
  const CampaignState kept{.campaign = "this", .done = 40, .measured = run(model("skylake"), 1)};
  REQUIRE(save_state(kept, file.path()).ok());
  std::string why;
  const auto read = load_state(file.path(), "this", why);
  REQUIRE(read.has_value());
  CHECK(read->done == 40);
  CHECK(read->measured == kept.measured);
  CHECK_FALSE(load_state(file.path(), "that", why).has_value());
  CHECK(why.find("another campaign") != std::string::npos);
  std::fstream damaged(file.path(), std::ios::in | std::ios::out | std::ios::binary);
  damaged.seekp(-200, std::ios::end);
  damaged.put('7').put('7').put('7');
  damaged.close();
  CHECK_FALSE(load_state(file.path(), "this", why).has_value());
  CHECK(why.find("damaged") != std::string::npos);
  std::filesystem::remove(file.path());
  CHECK_FALSE(load_state(file.path(), "this", why).has_value());
  CHECK(why.empty());
  CHECK(save_state(kept, "/nowhere/at/all").error().id == "CAL-003");
}

TEST_CASE("hostile state files are refused, not believed") {
  const TemporaryFile file;
  std::string why;
  for (const char* text :
       {"", "{", "[]", "{\"schema\":1}", "{\"schema\":\"understudy.calibration-state.v1\"}",
        "{\"schema\":\"understudy.calibration-state.v1\",\"crc32c\":\"x\",\"content\":3}"}) {
    INFO(text);
    std::ofstream(file.path()) << text;
    CHECK_FALSE(load_state(file.path(), "this", why).has_value());
    CHECK_FALSE(why.empty());
  }
}

TEST_CASE(
    "a calibrated profile survives its file, and the engine's model of it is the one measured") {
  const pmu::HostProfile profile = profile_with("geometric:20:400", 2);
  const auto read = pmu::parse_profile(pmu::to_toml(profile), "host.toml");
  REQUIRE(read.ok());
  CHECK(*read == profile);
  CHECK(read->model->skid == model("geometric:20:400").skid);
  CHECK(read->exact);
  CHECK(read->margin > 200);
  CHECK(read->tail->kind == "pareto");
}

TEST_CASE("landing costs rise with the margin, and none overshoots from the safe one on") {
  const Measurements measured = run(model("fixed:100"), 1);
  REQUIRE(measured.landings.size() == 8);
  uint64_t stops = 0;
  for (const auto& [margin, tally] : measured.landings) {
    CHECK((tally.overshoots == 0) == (margin > 100));
    if (margin > 101) CHECK(tally.stops >= stops);
    stops = tally.stops;
  }
  const auto rate = stop_rate(measured.landings, measured.skid_of_all());
  REQUIRE(rate.has_value());
  CHECK(rate->per_branch > 0);
}

TEST_CASE("two measurements of one host are the same, of two hosts they are not") {
  const pmu::HostProfile a = profile_with("skylake", 1), again = profile_with("skylake", 2);
  CHECK_FALSE(changed(compare(a, again)));
  const auto rows = compare(a, profile_with("fixed:100", 1));
  CHECK(changed(rows));
  CHECK(comparison_text(rows).find("CHANGED  skid p50") != std::string::npos);
  CHECK(comparison_json(rows)["changed"] == true);
  pmu::HostProfile newer = again;
  newer.host.kernel = "7.0";
  CHECK_FALSE(changed(compare(a, newer)));
  newer.quirks = {pmu::Quirk::kSmiLeak};
  CHECK(changed(compare(a, newer)));
}

TEST_CASE(
    "throttling is named even where few alarms set far apart make the tail seem without end") {
  const pmu::ModelSettings settings{.skid = model("sapphire-rapids").skid,
                                    .misbehaviour = {.throttle_arms = 50}};
  SoftHost host(settings);
  // A seed at which the late alarms of the storm could be those of such a tail.
  Campaign campaign({.host = host,
                     .amounts = {.skid_samples = 20'000,
                                 .pieces = 500,
                                 .piece_branches = 100'000,
                                 .alarms = 1000,
                                 .period_samples = 1000},
                     .machine = {}},
                    97);
  while (!campaign.finished()) REQUIRE(campaign.next().ok());
  Measurements measured = campaign.measured();
  const auto found = analyse(measured, {});
  REQUIRE(found->diagnoses.size() == 1);
  CHECK(found->diagnoses[0].quirk == pmu::Quirk::kThrottling);
  // Were they late as often when set far apart, it would be skid.
  measured.storm.late = measured.sparse.late;
  CHECK(analyse(measured, {})->diagnoses.empty());
}

TEST_CASE("a TSC that a kernel measured anew is noted, one of another rate is a change") {
  pmu::HostProfile a = profile_with("fixed:100", 1), b = a;
  const auto verdict_at = [&](double hz) {
    a.tsc = pmu::TscStatistics{.hz = 2.4e9, .hz_low = 2.4e9 - 1000, .hz_high = 2.4e9 + 1000};
    b.tsc = pmu::TscStatistics{.hz = hz, .hz_low = hz - 1000, .hz_high = hz + 1000};
    const auto rows = compare(a, b);
    const auto row = std::find_if(rows.begin(), rows.end(),
                                  [](const Comparison& r) { return r.what == "TSC rate"; });
    REQUIRE(row != rows.end());
    return row->verdict;
  };
  CHECK(verdict_at(2.4e9 + 1500) == Verdict::kSame);
  CHECK(verdict_at(2.4e9 * (1 + 50e-6)) == Verdict::kNoted);
  CHECK(verdict_at(2.4e9 * (1 - 1e-3)) == Verdict::kChanged);
}

TEST_CASE("report and charts name what outside readers look for") {
  const pmu::ModelSettings settings = model("skylake");
  const Measurements measured = run(settings, 1);
  const auto found = analyse(measured, {});
  const pmu::HostProfile profile =
      profile_of(*found, measured, SoftHost(settings), settings, "2026-11-30");
  const nlohmann::json json = report_json(*found, measured, profile, "soft", true);
  for (const char* key : {"schema", "event", "margin", "skid", "overcount", "exact", "step_ns",
                          "trace_mb_per_s", "quirks", "tail", "reach"})
    CHECK(json.contains(key));
  for (const char* key : {"p50", "p99", "max"}) CHECK(json["skid"].contains(key));
  CHECK(json["margin"] == profile.margin);
  CHECK(report_text(*found, measured, profile, false).find("NOT COMPLETE") == 0);
  const std::string svg = plot(*found, measured, profile);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find("inf") == std::string::npos);
  for (const char* text :
       {"Skid of the alarm", "Exactness of the clock", "Cost of a landing", "margin, branches"})
    CHECK(svg.find(text) != std::string::npos);
}

TEST_CASE("where shapes of code differ in skid the margin is that of the worst") {
  Measurements measured;
  for (uint64_t i = 0; i < 5000; ++i) {
    measured.skid["taken"].add(1000, {.came_after = 1010});
    measured.skid["strings"].add(1000, {.came_after = 1400});
  }
  const auto found = analyse(measured, {});
  REQUIRE(found.has_value());
  CHECK(found->skid_of == "strings");
  CHECK(found->choice.margin == 401);
}

}  // namespace us::calib
