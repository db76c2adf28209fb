// landing_soak [--landings N] [--seed S] [--skid MODEL]: N landings (12,000), shared out over every
// skid model, every kind of payload, with instruction counts and without; each is compared with the
// exact instruction where the other machine stands. Then margins below the skid: every overshoot
// must be said. Exit 0: not one was wrong.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/property/landing/pair.h"

namespace us::replay::soak {
namespace {

struct Skid {
  const char* text;
  uint64_t margin;
};
constexpr Skid kEnough[] = {{"none", 0},
                            {"fixed:100", 101},
                            {"uniform:0:200", 201},
                            {"geometric:20:400", 401},
                            {"skylake", 101},
                            {"sapphire-rapids", 126},
                            {"heavy-tail:30:2000", 2001},
                            {"bimodal:5:300:10", 301}};
constexpr Skid kTooSmall[] = {
    {"fixed:100", 40},       {"uniform:0:200", 60},      {"geometric:20:400", 5}, {"skylake", 10},
    {"sapphire-rapids", 12}, {"heavy-tail:30:2000", 30}, {"bimodal:5:300:10", 50}};

struct Totals {
  uint64_t landings = 0, overshoots = 0, skid_max = 0, steps_max = 0, wrong = 0;
};

pmu::HostProfile profile_of(const Skid& skid, uint64_t seed) {
  const auto model = pmu::parse_skid(skid.text);
  US_CHECK(model.ok(), "{}", skid.text);
  return {.event = "model",
          .margin = skid.margin,
          .exact = true,
          .model = pmu::ModelSettings{.skid = *model, .seed = seed}};
}

// `count` landings of one combination, more than one pair's worth only in long forms.
void soak(const Skid& skid, unsigned kind, bool counted, uint64_t count, uint64_t seed,
          Totals& totals) {
  Pair pair(kind, profile_of(skid, seed), counted, seed);
  for (uint64_t i = 0; i < count; ++i) {
    const std::string wrong = pair.land_once();
    if (wrong.empty()) continue;
    ++totals.wrong;
    std::printf("WRONG: skid %s margin %lu, payload %s, %s, seed %lu, landing %lu: %s\n", skid.text,
                skid.margin, kKinds[kind], counted ? "counted" : "not counted", seed, i,
                wrong.c_str());
    break;
  }
  const LandingCounters& c = pair.counters();
  totals.landings += c.landings;
  totals.overshoots += c.overshoots;
  totals.skid_max = std::max(totals.skid_max, c.skid_max);
  totals.steps_max = std::max(totals.steps_max, c.steps_max);
}

Totals soak_all(const Skid& skid, uint64_t each, uint64_t seed) {
  Totals totals;
  for (unsigned kind = 0; kind < kKindCount; ++kind)
    for (const bool counted : {true, false}) soak(skid, kind, counted, each, seed++, totals);
  std::printf(
      "%-20s margin %4lu: %8lu landings, %6lu overshoots said, %lu wrong; skid up to %lu, "
      "precise stops up to %lu\n",
      skid.text, skid.margin, totals.landings, totals.overshoots, totals.wrong, totals.skid_max,
      totals.steps_max);
  std::fflush(stdout);
  return totals;
}

// What long forms found, in every form. The first: an alarm later than its margin let the guest run
// past a HLT that was the target, and go to sleep at the target's branch count.
uint64_t soak_found() {
  Totals totals;
  const auto halts = std::find_if(std::begin(kKinds), std::end(kKinds),
                                  [](const char* kind) { return std::strcmp(kind, "halts") == 0; });
  US_CHECK(halts != std::end(kKinds), "no such payload");
  soak({"skylake", 10}, static_cast<unsigned>(halts - std::begin(kKinds)), false, 420, 1112,
       totals);
  return totals.wrong;
}

// `only`: the one skid model to soak; empty: all.
int soak_everything(uint64_t landings, uint64_t seed, const std::string& only) {
  std::printf("seed %lu\n", seed);
  const size_t models = only.empty() ? std::size(kEnough) : 1;
  const uint64_t each = landings / (models * kKindCount * 2) + 1;
  uint64_t right = 0, wrong = soak_found(), said = 0;
  for (const Skid& skid : kEnough) {
    if (!only.empty() && only != skid.text) continue;
    const Totals t = soak_all(skid, each, seed);
    right += t.landings;
    wrong += t.wrong + t.overshoots;  // with margin enough there are none
    seed += 100;
  }
  for (const Skid& skid : kTooSmall) {
    if (!only.empty() && only != skid.text) continue;
    const Totals t = soak_all(skid, each / 8 + 1, seed);
    wrong += t.wrong + (t.overshoots == 0);
    said += t.overshoots;
    seed += 100;
  }
  std::printf("%lu landings with margin enough, %lu overshoots without, all said; wrong: %lu\n",
              right, said, wrong);
  return wrong == 0 && right >= landings ? 0 : 1;
}

}  // namespace
}  // namespace us::replay::soak

int main(int argc, char** argv) {
  uint64_t landings = 12'000, seed = 1;
  std::string only;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--landings") == 0) landings = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--seed") == 0) seed = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--skid") == 0) only = argv[i + 1];
  }
  return us::replay::soak::soak_everything(landings, seed, only);
}
