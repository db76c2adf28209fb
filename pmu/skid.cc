#include "pmu/skid.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fmt/format.h>
#include <optional>
#include <vector>

namespace us::pmu {
namespace {

struct KindName {
  SkidKind kind;
  std::string_view name;
  size_t parameters;
};

constexpr KindName kKinds[] = {
    {SkidKind::kNone, "none", 0},
    {SkidKind::kFixed, "fixed", 1},
    {SkidKind::kUniform, "uniform", 2},
    {SkidKind::kGeometric, "geometric", 2},
    {SkidKind::kSkylake, "skylake", 0},
    {SkidKind::kSapphireRapids, "sapphire-rapids", 0},
    {SkidKind::kHeavyTail, "heavy-tail", 2},
    {SkidKind::kBimodal, "bimodal", 3},
};

const KindName& entry_of(SkidKind kind) {
  return *std::find_if(std::begin(kKinds), std::end(kKinds),
                       [kind](const KindName& k) { return k.kind == kind; });
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > kSkidMax) {
    return std::nullopt;
  }
  return value;
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t colon = text.find(':');
    parts.push_back(text.substr(0, colon));
    if (colon == std::string_view::npos) return parts;
    text.remove_prefix(colon + 1);
  }
}

uint64_t geometric(Random& random, double mean, uint64_t max) {
  const double value = -std::log(1.0 - random.unit()) * mean;
  return std::min(static_cast<uint64_t>(value), max);
}

// Pareto with shape 1: half the mass below the median, one in a hundred above 50 medians.
uint64_t heavy_tail(Random& random, uint64_t median, uint64_t max) {
  const double value = static_cast<double>(median) / 2.0 / (1.0 - random.unit());
  return value >= static_cast<double>(max) ? max : static_cast<uint64_t>(value);
}

UserError bad_skid(std::string_view text) {
  return {"PMU-008",
          ExitCode::kUsage,
          "cannot read a skid model",
          fmt::format("\"{}\"", text),
          "none, fixed:N, uniform:MIN:MAX, geometric:MEAN:MAX, skylake, sapphire-rapids, "
          "heavy-tail:MEDIAN:MAX or bimodal:NEAR:FAR:PERCENT, numbers up to 1000000",
          "write one of these"};
}

bool sensible(const SkidModel& skid) {
  switch (skid.kind) {
    case SkidKind::kUniform:
    case SkidKind::kGeometric:
    case SkidKind::kHeavyTail: return skid.a <= skid.b;
    case SkidKind::kBimodal: return skid.c <= 100;
    default: return true;
  }
}

}  // namespace

uint64_t SkidModel::draw(Random& random) const {
  switch (kind) {
    case SkidKind::kNone: return 0;
    case SkidKind::kFixed: return a;
    case SkidKind::kUniform: return a + random.below(b - a + 1);
    case SkidKind::kGeometric: return geometric(random, static_cast<double>(a), b);
    case SkidKind::kSkylake: return 5 + geometric(random, 12, 95);
    case SkidKind::kSapphireRapids: return 8 + geometric(random, 15, 117);
    case SkidKind::kHeavyTail: return heavy_tail(random, a, b);
    case SkidKind::kBimodal: return random.below(100) < c ? b : a;
  }
  return 0;
}

uint64_t SkidModel::max() const {
  switch (kind) {
    case SkidKind::kNone: return 0;
    case SkidKind::kFixed: return a;
    case SkidKind::kUniform:
    case SkidKind::kGeometric:
    case SkidKind::kHeavyTail: return b;
    case SkidKind::kSkylake: return 100;         // rr: PerfCounters' skid for Skylake
    case SkidKind::kSapphireRapids: return 125;  // rr: for Sapphire Rapids
    case SkidKind::kBimodal: return std::max(c < 100 ? a : 0, c > 0 ? b : 0);
  }
  return 0;
}

double SkidModel::chance_from(uint64_t x) const {
  if (x > max()) return 0;
  const auto exponential = [](uint64_t over, double mean) {
    return mean > 0 ? std::exp(-static_cast<double>(over) / mean) : over == 0 ? 1.0 : 0.0;
  };
  switch (kind) {
    case SkidKind::kNone:
    case SkidKind::kFixed: return 1;
    case SkidKind::kUniform:
      return x <= a ? 1 : static_cast<double>(b - x + 1) / static_cast<double>(b - a + 1);
    case SkidKind::kGeometric: return exponential(x, static_cast<double>(a));
    case SkidKind::kSkylake: return x <= 5 ? 1 : exponential(x - 5, 12);
    case SkidKind::kSapphireRapids: return x <= 8 ? 1 : exponential(x - 8, 15);
    case SkidKind::kHeavyTail:
      return x == 0 ? 1 : std::min(1.0, static_cast<double>(a) / 2 / static_cast<double>(x));
    case SkidKind::kBimodal: {
      const double far = static_cast<double>(c) / 100;
      return (x <= a ? 1 - far : 0) + (x <= b ? far : 0);
    }
  }
  return 0;
}

Result<SkidModel> parse_skid(std::string_view text) {
  const std::vector<std::string_view> parts = split(text);
  for (const KindName& entry : kKinds) {
    if (entry.name != parts[0] || parts.size() != entry.parameters + 1) continue;
    uint64_t values[3] = {};
    for (size_t i = 0; i < entry.parameters; ++i) {
      const auto value = parse_number(parts[i + 1]);
      if (!value) return bad_skid(text);
      values[i] = *value;
    }
    const SkidModel skid{entry.kind, values[0], values[1], values[2]};
    if (!sensible(skid)) return bad_skid(text);
    return skid;
  }
  return bad_skid(text);
}

std::string to_string(const SkidModel& skid) {
  const KindName& entry = entry_of(skid.kind);
  std::string out(entry.name);
  const uint64_t values[3] = {skid.a, skid.b, skid.c};
  for (size_t i = 0; i < entry.parameters; ++i) out += fmt::format(":{}", values[i]);
  return out;
}

}  // namespace us::pmu
