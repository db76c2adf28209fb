// Whether two profiles speak of one and the same behaviour, figure by figure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "pmu/profile.h"

namespace us::calib {

enum class Verdict : uint8_t {
  kSame,     // equal, or no further apart than chance explains
  kNoted,    // different, and no matter by itself: kernel, microcode
  kChanged,  // the host behaves differently
};

struct Comparison {
  std::string what;  // "skid p99"
  std::string was, is;
  Verdict verdict = Verdict::kSame;
};

std::vector<Comparison> compare(const pmu::HostProfile& a, const pmu::HostProfile& b);
bool changed(const std::vector<Comparison>& rows);

std::string comparison_text(const std::vector<Comparison>& rows);
nlohmann::json comparison_json(const std::vector<Comparison>& rows);

}  // namespace us::calib
