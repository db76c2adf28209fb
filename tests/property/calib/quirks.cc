// Each misbehaviour of the model is named, and nothing else is; a clean model raises no alarm.
#include <algorithm>
#include <cstdio>
#include <set>

#include "tests/property/calib/soak.h"

namespace us::calib::soak {
namespace {

using pmu::Quirk;

struct Case {
  const char* name;
  pmu::Misbehaviour bad;
  std::set<Quirk> expected;
};

const Case kCases[] = {
    {"overcount, always", {.overcount_one_in = 1}, {Quirk::kHostInterruptOvercount}},
    {"overcount, one in 1000", {.overcount_one_in = 1000}, {Quirk::kHostInterruptOvercount}},
    {"overcount by 7",
     {.overcount_one_in = 50, .overcount_branches = 7},
     {Quirk::kHostInterruptOvercount}},
    {"SMI every million", {.smi_interval_branches = 1'000'000}, {Quirk::kSmiLeak}},
    {"SMI every ten million",
     {.smi_interval_branches = 10'000'000, .smi_branches_max = 200},
     {Quirk::kSmiLeak}},
    {"taken only", {.taken_only = true}, {Quirk::kTakenOnlyEvent}},
    {"periods from 32", {.hidden_period_min = 32}, {Quirk::kMinimumPeriod32}},
    {"periods from 128", {.hidden_period_min = 128}, {Quirk::kMinimumPeriod128}},
    {"throttled over 50 in 100,000", {.throttle_arms = 50}, {Quirk::kThrottling}},
    {"throttled over 10 in 200,000",
     {.throttle_arms = 10, .throttle_window_branches = 200'000},
     {Quirk::kThrottling}},
    {"one overflow in 200 lost", {.lose_one_in = 200}, {Quirk::kLostOverflow}},
    {"one overflow in 2000 lost", {.lose_one_in = 2000}, {Quirk::kLostOverflow}},
    {"overcount and periods from 32",
     {.overcount_one_in = 10, .hidden_period_min = 32},
     {Quirk::kHostInterruptOvercount, Quirk::kMinimumPeriod32}},
};

constexpr const char* kSkids[] = {
    "none",    "fixed:100",       "uniform:0:200",   "geometric:20:400",
    "skylake", "sapphire-rapids", "bimodal:5:300:10"};

Amounts amounts(const Sizes& sizes) {
  return {.skid_samples = sizes.samples,
          .pieces = 500,
          .piece_branches = 100'000,
          .alarms = 1000,
          .period_samples = 1000,
          .landings = 0};
}

std::set<Quirk> named(const pmu::ModelSettings& model, const Sizes& sizes, uint64_t seed,
                      std::string& evidence) {
  const auto found = analyse(measure_counter(model, amounts(sizes), seed), {});
  US_CHECK(found.has_value());
  std::set<Quirk> out;
  for (const Diagnosis& d : found->diagnoses) {
    out.insert(d.quirk);
    evidence += fmt::format("{}{}: {}", evidence.empty() ? "" : "; ", pmu::info_of(d.quirk).name,
                            d.evidence);
  }
  return out;
}

int misbehaving(const Sizes& sizes) {
  int wrong = 0;
  for (const Case& c : kCases) {
    uint64_t right = 0;
    std::string example;
    // A tenth of the seeds for each: there are many cases.
    const uint64_t runs = std::max<uint64_t>(sizes.runs / 10, 1);
    for (uint64_t run = 0; run < runs; ++run) {
      const pmu::ModelSettings model{.skid = skid_named(kSkids[run % std::size(kSkids)]),
                                     .misbehaviour = c.bad};
      std::string evidence;
      const bool good = named(model, sizes, sizes.seed + run, evidence) == c.expected;
      right += good;
      if (!good) {
        std::printf("  %s, skid %s, seed %lu: %s\n", c.name, kSkids[run % std::size(kSkids)],
                    sizes.seed + run, evidence.empty() ? "nothing named" : evidence.c_str());
      }
      if (run == 0) example = evidence;
    }
    wrong += right != runs;
    std::printf("%-32s named in %lu of %lu: %s\n", c.name, right, runs, example.c_str());
    std::fflush(stdout);
  }
  return wrong;
}

int clean(const Sizes& sizes) {
  uint64_t alarms = 0;
  for (uint64_t run = 0; run < sizes.runs; ++run) {
    const pmu::ModelSettings model{.skid = skid_named(kSkids[run % std::size(kSkids)])};
    std::string evidence;
    if (named(model, sizes, sizes.seed + run, evidence).empty()) continue;
    ++alarms;
    std::printf("  clean, skid %s, seed %lu: %s\n", kSkids[run % std::size(kSkids)],
                sizes.seed + run, evidence.c_str());
  }
  std::printf("%-32s %lu false alarms over %lu seeds\n", "clean", alarms, sizes.runs);
  return static_cast<int>(alarms);
}

}  // namespace

int quirks(const Sizes& sizes) { return clean(sizes) + misbehaving(sizes); }

}  // namespace us::calib::soak
