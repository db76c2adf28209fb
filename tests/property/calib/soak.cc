// calib_soak truth|quirks|cost|landing [--runs N] [--samples N] [--landings N] [--seed S]: whether
// what calibration says of a modelled counter is true of it. Exit 0: nothing was wrong.
#include "tests/property/calib/soak.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace us::calib::soak {

pmu::SkidModel skid_named(const std::string& text) {
  const auto skid = pmu::parse_skid(text);
  US_CHECK(skid.ok(), "{}", text);
  return *skid;
}

namespace {

// The least value from 0 to `most` for which `holds`, which then holds for all above.
template <class F>
uint64_t least(uint64_t most, F holds) {
  uint64_t low = 0;
  while (low < most) {
    const uint64_t middle = (low + most) / 2;
    if (holds(middle)) {
      most = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace

uint64_t true_reach(const pmu::SkidModel& skid, double chance) {
  return least(skid.max() + 1, [&](uint64_t m) { return skid.chance_from(m) <= chance; });
}

uint64_t true_quantile(const pmu::SkidModel& skid, double q) {
  return least(skid.max(), [&](uint64_t x) { return 1 - skid.chance_from(x + 1) >= q - 1e-12; });
}

Measurements measure_skid(SoftHost& host, uint64_t samples, uint64_t seed) {
  Bench bench{.host = host, .amounts = {.skid_samples = samples}, .machine = {}};
  Measurements measured;
  for (uint64_t chunk = 0; chunk < kSkid.chunks(bench); ++chunk) {
    const uint64_t own = seed * 1'000'003 + chunk;
    host.reseed(own);
    const Status done = kSkid.run(bench, chunk, own, measured);
    US_CHECK(done.ok(), "the model cannot fail");
  }
  return measured;
}

Measurements measure_counter(const pmu::ModelSettings& model, const Amounts& amounts,
                             uint64_t seed) {
  SoftHost host(model);
  Campaign campaign({.host = host, .amounts = amounts, .machine = {}}, seed);
  while (!campaign.finished()) {
    const Status done = campaign.next();
    US_CHECK(done.ok(), "the model cannot fail");
  }
  return campaign.measured();
}

}  // namespace us::calib::soak

namespace us::calib::soak {
namespace {

// The short forms; see docs/SPECIFICATION.md for the long ones.
struct Form {
  const char* name;
  int (*run)(const Sizes& sizes);
  Sizes sizes;
};
constexpr Form kForms[] = {
    {"truth", truth, {.runs = 10, .samples = 50'000, .landings = 200'000}},
    {"quirks", quirks, {.runs = 20, .samples = 20'000}},
    {"cost", cost, {.runs = 1, .samples = 1'000'000, .landings = 60}},
    {"landing", landing, {.samples = 100'000, .landings = 200}},
};

}  // namespace
}  // namespace us::calib::soak

int main(int argc, char** argv) {
  using namespace us::calib::soak;
  const std::string part = argc > 1 ? argv[1] : "";
  const auto* form = std::find_if(std::begin(kForms), std::end(kForms),
                                  [&part](const Form& f) { return part == f.name; });
  if (form == std::end(kForms)) {
    std::fprintf(stderr,
                 "calib_soak truth|quirks|cost|landing [--runs N] [--samples N] [--landings N] "
                 "[--seed S]\n");
    return 2;
  }
  Sizes sizes = form->sizes;
  for (int i = 2; i + 1 < argc; i += 2) {
    const uint64_t value = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--runs") == 0) sizes.runs = value;
    if (std::strcmp(argv[i], "--samples") == 0) sizes.samples = value;
    if (std::strcmp(argv[i], "--landings") == 0) sizes.landings = value;
    if (std::strcmp(argv[i], "--seed") == 0) sizes.seed = value;
  }
  std::printf("seed %lu\n", sizes.seed);
  const int wrong = form->run(sizes);
  std::printf("wrong: %d\n", wrong);
  return wrong == 0 ? 0 : 1;
}
