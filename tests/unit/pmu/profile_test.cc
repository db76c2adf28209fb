#include "pmu/profile.h"

#include <doctest/doctest.h>
#include <fstream>
#include <unistd.h>

namespace us::pmu {
namespace {

HostProfile full_profile() {
  HostProfile profile;
  profile.event = "BR_INST_RETIRED:COND";
  profile.config = 0x11c4;
  profile.margin = 160;
  profile.minimum_period = 32;
  profile.exact = true;
  profile.confidence = Confidence::kMeasured;
  profile.date = "2026-01-31";
  profile.quirks = {Quirk::kMinimumPeriod32, Quirk::kThrottling};
  profile.host = {"Some CPU @ 2.0GHz", "GenuineIntel", 6, 0x8f, 8, "0x2b000590", "6.1.0-18-amd64"};
  profile.skid = SkidStatistics{17, 61, 104, 100'000, 16, 18, 59, 64};
  profile.tail = TailStatistics{"pareto", 140, 125, 158, 1e-6, 0.99};
  profile.read_ns = 21.5;
  profile.arm_ns = 2400;
  profile.overcount = {{"timer_storm", 0.0}, {"ept_faults", 0.25}};
  profile.step_ns = 2100.5;
  profile.trace_mb_per_s = 180.0;
  profile.tsc = TscStatistics{2.4e9, 2.3999e9, 2.4001e9, -0.25, -1.5, 1, 93.5, "hpet"};
  profile.model = ModelSettings{
      *parse_skid("bimodal:5:90:10"), 42, {.smi_interval_branches = 1'000'000, .taken_only = true}};
  return profile;
}

std::string minimal(const std::string& more) {
  return "schema = \"understudy.host-profile.v1\"\nevent = \"model\"\nmargin = 100\n" + more;
}

UserError error_of(const std::string& toml) {
  auto profile = parse_profile(toml, "host.toml");
  REQUIRE_FALSE(profile.ok());
  CHECK(profile.error().what == "cannot use the host profile host.toml");
  CHECK(profile.error().mend.find("understudy calibrate -o host.toml") != std::string::npos);
  return profile.error();
}

}  // namespace

TEST_CASE("a profile with every field set is written and read back equal") {
  const HostProfile profile = full_profile();
  const auto back = parse_profile(to_toml(profile), "host.toml");
  REQUIRE(back.ok());
  CHECK(*back == profile);
}

TEST_CASE("the default model profile reads back equal and its margin covers its skid") {
  const HostProfile profile = default_model_profile();
  const auto back = parse_profile(to_toml(profile), "x");
  REQUIRE(back.ok());
  CHECK(*back == profile);
  CHECK(profile.margin > profile.model->skid.max());
  CHECK(model_options(profile).skid.kind == SkidKind::kSkylake);
}

TEST_CASE("a minimal profile takes defaults for the rest and models an ideal counter") {
  const auto profile = parse_profile(minimal(""), "host.toml");
  REQUIRE(profile.ok());
  CHECK(profile->minimum_period == 1);
  CHECK(model_options(*profile).skid.kind == SkidKind::kNone);
}

TEST_CASE("each thing wrong in a profile is named with its line and key under its own id") {
  struct Case {
    const char* more;
    const char* id;
    const char* seen;
  };
  const Case cases[] = {
      {"x = \n", "PMU-002", "line 4"},
      {"marjin = 5\n", "PMU-004", "line 4: marjin is unknown"},
      {"[host]\nname = \"x\"\n", "PMU-004", "line 5: host.name is unknown"},
      {"minimum_period = \"32\"\n", "PMU-005", "line 4: minimum_period is not a whole number"},
      {"minimum_period = 0\n", "PMU-005", "line 4: minimum_period is 0"},
      {"config = -1\n", "PMU-005", "line 4: config is -1"},
      {"exact = 1\n", "PMU-005", "line 4: exact is not a truth value"},
      {"step_ns = nan\n", "PMU-005", "line 4: step_ns is not a number that can be"},
      {"confidence = \"high\"\n", "PMU-005", "line 4: confidence is \"high\""},
      {"skid = 5\n", "PMU-005", "line 4: skid is not a table"},
      {"quirks = [\"smi-leak\", \"gremlins\"]\n", "PMU-006", "line 4: quirks is \"gremlins\""},
      {"[model]\nskid = \"fast\"\n", "PMU-008", "line 5: model.skid is \"fast\""},
      {"[overcount]\nstorm = \"many\"\n", "PMU-005", "line 5: overcount.storm is not a number"},
  };
  for (const Case& c : cases) {
    INFO(c.more);
    const UserError error = error_of(minimal(c.more));
    CHECK(error.id == c.id);
    CHECK(error.seen.find(c.seen) == 0);
    CHECK_FALSE(error.needed.empty());
  }
}

TEST_CASE("any prefix of a profile and any byte of it changed parses, or fails under a PMU id") {
  const std::string text = to_toml(full_profile());
  const auto try_one = [](const std::string& toml) {
    const auto profile = parse_profile(toml, "host.toml");
    if (!profile) CHECK(profile.error().id.rfind("PMU-00", 0) == 0);
    return profile.ok();
  };
  size_t refused = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    refused += try_one(text.substr(0, i)) ? 0 : 1;
    for (const char byte : {'\0', '"', '=', '[', '9', '\n', '\xff'}) {
      std::string changed = text;
      changed[i] = byte;
      refused += try_one(changed) ? 0 : 1;
    }
  }
  CHECK(refused > text.size());
}

TEST_CASE("a missing key is PMU-003, another schema or none PMU-007, a missing file PMU-001") {
  CHECK(error_of("schema = \"understudy.host-profile.v1\"\nevent = \"x\"\n").id == "PMU-003");
  CHECK(error_of("schema = \"understudy.host-profile.v9\"\n").id == "PMU-007");
  CHECK(error_of("event = \"x\"\nmargin = 3\n").id == "PMU-007");
  const auto missing = load_profile("/nonexistent/host.toml");
  REQUIRE_FALSE(missing.ok());
  CHECK(missing.error().id == "PMU-001");
  CHECK(missing.error().seen == "No such file or directory");
  const auto folder = load_profile("/tmp");
  REQUIRE_FALSE(folder.ok());
  CHECK(folder.error().id == "PMU-001");
}

TEST_CASE("a profile saved is loaded equal; a place that takes no file is PMU-009") {
  const std::string path = "/tmp/us-profile-" + std::to_string(::getpid()) + ".toml";
  REQUIRE(save_profile(full_profile(), path).ok());
  const auto back = load_profile(path);
  ::unlink(path.c_str());
  REQUIRE(back.ok());
  CHECK(*back == full_profile());
  const Status status = save_profile(full_profile(), "/nonexistent/host.toml");
  REQUIRE_FALSE(status.ok());
  CHECK(status.error().id == "PMU-009");
}

TEST_CASE(
    "a quirk that spoils the clock refuses recording with its remedy, a handled one does not") {
  HostProfile profile = default_model_profile();
  profile.quirks = {Quirk::kThrottling, Quirk::kMinimumPeriod128, Quirk::kUnboundedSkid};
  CHECK_FALSE(refuse_to_record(profile, "host.toml"));
  for (Quirk quirk : {Quirk::kHostInterruptOvercount, Quirk::kPmiOvercount, Quirk::kSmiLeak,
                      Quirk::kLostOverflow, Quirk::kTakenOnlyEvent, Quirk::kSpecLockMap}) {
    profile.quirks = {quirk};
    const auto error = refuse_to_record(profile, "host.toml");
    REQUIRE(error.has_value());
    CHECK(error->id == "PMU-010");
    CHECK(error->exit_code == ExitCode::kHostCannot);
    CHECK(error->seen.find(info_of(quirk).name) != std::string::npos);
    CHECK(error->mend == info_of(quirk).remedy);
  }
}

TEST_CASE("a host that was measured and miscounts may not record, whatever the reason") {
  HostProfile profile = full_profile();
  CHECK_FALSE(refuse_to_record(profile, "host.toml"));
  profile.exact = false;
  const auto error = refuse_to_record(profile, "host.toml");
  REQUIRE(error.has_value());
  CHECK(error->id == "PMU-010");
  CHECK(error->seen.find("exact = false") != std::string::npos);
}

TEST_CASE("a profile of steps is PMU-023 where a counter counts, and may be used elsewhere") {
  HostProfile profile = full_profile();
  profile.model.reset();
  profile.event = "steps";
  const auto error = refuse_other_counter(profile, LandsBy::kCounter, "host.toml");
  REQUIRE(error.has_value());
  CHECK(error->id == "PMU-023");
  CHECK(error->exit_code == ExitCode::kIncompatible);
  CHECK(error->what.find("host.toml") != std::string::npos);
  CHECK(error->seen.find("\"steps\"") != std::string::npos);
  CHECK_FALSE(refuse_other_counter(profile, LandsBy::kSteps, "host.toml"));
  CHECK_FALSE(refuse_other_counter(profile, LandsBy::kModel, "host.toml"));
}

TEST_CASE("a modelled counter's profile is PMU-023 on any processor but the software's") {
  for (const bool table : {false, true}) {
    HostProfile profile = default_model_profile();
    // Either of the two says it.
    if (table) profile.confidence = Confidence::kTable;
    if (!table) profile.model.reset();
    for (const LandsBy lands_by : {LandsBy::kCounter, LandsBy::kSteps}) {
      const auto error = refuse_other_counter(profile, lands_by, "host.toml");
      REQUIRE(error.has_value());
      CHECK(error->id == "PMU-023");
      CHECK(error->seen.find(table ? "[model]" : "confidence") != std::string::npos);
      CHECK((error->mend.find("--kvm-steps") != std::string::npos) ==
            (lands_by == LandsBy::kSteps));
    }
    CHECK_FALSE(refuse_other_counter(profile, LandsBy::kModel, "host.toml"));
  }
}

TEST_CASE("a profile of a processor's counter may be used whatever a machine lands by") {
  HostProfile profile = full_profile();
  profile.model.reset();
  for (const LandsBy lands_by : {LandsBy::kModel, LandsBy::kCounter, LandsBy::kSteps})
    CHECK_FALSE(refuse_other_counter(profile, lands_by, "host.toml"));
}

TEST_CASE("every quirk has a name that finds it again, parts, an effect, a probe and a remedy") {
  for (const QuirkInfo& info : all_quirks()) {
    CHECK(quirk_by_name(info.name) == info.quirk);
    CHECK_FALSE(info.parts.empty());
    CHECK_FALSE(info.effect.empty());
    CHECK_FALSE(info.probe.empty());
    CHECK_FALSE(info.remedy.empty());
  }
  CHECK_FALSE(quirk_by_name("gremlins"));
}

}  // namespace us::pmu
