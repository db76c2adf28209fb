// How late an alarm is: distributions to draw from, and their names in profiles and on the command
// line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "pmu/random.h"

namespace us::pmu {

enum class SkidKind : uint8_t {
  kNone,
  kFixed,           // fixed:N
  kUniform,         // uniform:MIN:MAX
  kGeometric,       // geometric:MEAN:MAX
  kSkylake,         // skylake: most under 40, never above 100 (rr's figure)
  kSapphireRapids,  // sapphire-rapids: the same with 125
  kHeavyTail,       // heavy-tail:MEDIAN:MAX: a Pareto tail, as seen on Zen
  kBimodal,         // bimodal:NEAR:FAR:PERCENT: FAR in PERCENT of the cases
};

constexpr uint64_t kSkidMax = 1'000'000;  // bound of every parameter

struct SkidModel {
  SkidKind kind = SkidKind::kNone;
  uint64_t a = 0, b = 0, c = 0;  // the parameters in the order above

  bool operator==(const SkidModel&) const = default;

  uint64_t draw(Random& random) const;
  // The largest value draw() can return: a margin below it must be expected to overshoot.
  uint64_t max() const;
  // P(draw() >= x): the truth that a measurement of the model must find.
  double chance_from(uint64_t x) const;
};

// PMU-008 for what does not parse.
Result<SkidModel> parse_skid(std::string_view text);
std::string to_string(const SkidModel& skid);

}  // namespace us::pmu
