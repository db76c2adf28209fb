#include "pmu/skid.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <vector>

namespace us::pmu {
namespace {

std::vector<uint64_t> draws(const char* text, size_t count = 20'000, uint64_t seed = 7) {
  const auto skid = parse_skid(text);
  REQUIRE(skid.ok());
  Random random(seed);
  std::vector<uint64_t> out(count);
  for (uint64_t& value : out) value = skid->draw(random);
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

TEST_CASE("every skid model draws between its least and its stated maximum, and reaches far up") {
  struct Case {
    const char* text;
    uint64_t least, median_max, top_min;
  };
  const Case cases[] = {
      {"none", 0, 0, 0},
      {"fixed:40", 40, 40, 40},
      {"uniform:10:90", 10, 60, 89},
      {"geometric:20:200", 0, 20, 150},
      {"skylake", 5, 30, 95},
      {"sapphire-rapids", 8, 40, 110},
      {"heavy-tail:30:5000", 15, 40, 5000},
      {"bimodal:10:90:20", 10, 10, 90},
  };
  for (const Case& c : cases) {
    INFO(c.text);
    const std::vector<uint64_t> values = draws(c.text);
    CHECK(values.front() >= c.least);
    CHECK(values.back() <= parse_skid(c.text)->max());
    CHECK(values[values.size() / 2] <= c.median_max);
    CHECK(values.back() >= c.top_min);
  }
}

TEST_CASE("one seed draws one sequence, another seed another") {
  CHECK(draws("skylake", 100, 1) == draws("skylake", 100, 1));
  CHECK(draws("skylake", 100, 1) != draws("skylake", 100, 2));
}

TEST_CASE("a skid model's text parses to itself; what is no model is PMU-008 with what is needed") {
  for (const char* text : {"none", "fixed:7", "uniform:1:2", "geometric:3:9", "skylake",
                           "sapphire-rapids", "heavy-tail:4:5", "bimodal:1:2:100"}) {
    CHECK(to_string(*parse_skid(text)) == text);
  }
  for (const char* text :
       {"", "fast", "fixed", "fixed:", "fixed:-1", "fixed:1:2", "uniform:9:1", "bimodal:1:2:101",
        "fixed:1000001", "fixed:99999999999999999999", "none:0", "fixed:1x"}) {
    INFO(text);
    const auto skid = parse_skid(text);
    REQUIRE_FALSE(skid.ok());
    CHECK(skid.error().id == "PMU-008");
    CHECK(skid.error().needed.find("geometric:MEAN:MAX") != std::string::npos);
  }
}

TEST_CASE("a skid model's chances are those of what it draws") {
  for (const char* text : {"none", "fixed:40", "uniform:10:90", "geometric:20:200", "skylake",
                           "sapphire-rapids", "heavy-tail:30:5000", "bimodal:10:90:20"}) {
    INFO(text);
    const auto skid = parse_skid(text);
    const std::vector<uint64_t> values = draws(text, 40'000);
    for (const uint64_t x :
         {0u, 1u, 10u, 11u, 40u, 41u, 90u, 91u, 100u, 125u, 4999u, 5000u, 5001u}) {
      const auto from = std::lower_bound(values.begin(), values.end(), x);
      const double seen = static_cast<double>(values.end() - from) / 40'000;
      CHECK(seen == doctest::Approx(skid->chance_from(x)).scale(1).epsilon(0.01));
    }
    CHECK(skid->chance_from(skid->max()) > 0);
    CHECK(skid->chance_from(skid->max() + 1) == 0);
  }
}

}  // namespace us::pmu
