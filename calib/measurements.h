// What experiments found, raw: everything that is said about a host is worked out from this. Kept
// in a file while measuring goes on.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "calib/experiment_host.h"
#include "calib/histogram.h"

namespace us::calib {

// Code of one shape, counted piece by piece and held against what it is made to retire.
struct CountTally {
  uint64_t pieces = 0;
  uint64_t branches = 0;  // really retired, conditional
  uint64_t taken = 0;     // of these
  uint64_t counted = 0;
  uint64_t interrupts = 0;
  uint64_t pieces_over = 0, pieces_under = 0;  // that counted too many, too few
  uint64_t over = 0, under = 0;                // branches too many, too few, over all such pieces
  uint64_t over_max = 0;                       // of one piece

  bool exact() const { return pieces_over == 0 && pieces_under == 0; }
  double over_per_million() const;
  void add(const Counted& piece);
  void add(const CountTally& other);
  bool operator==(const CountTally&) const = default;
};

// Alarms of one way of setting them.
struct AlarmTally {
  uint64_t armed = 0;
  uint64_t missing = 0;  // never came
  Histogram late;        // branches after their time; one that came early counts as 0
  uint64_t early = 0;

  void add(uint64_t period, const AlarmRun& run);
  void add(const AlarmTally& other);
  bool operator==(const AlarmTally&) const = default;
};

// Landings of the engine on the software processor with one margin.
struct LandingTally {
  uint64_t landings = 0, alarms = 0, stops = 0, overshoots = 0;
  void add(const LandingTally& other);
  bool operator==(const LandingTally&) const = default;
};

struct Measurements {
  std::map<std::string, CountTally> counts;   // "mixed", "mixed+interrupts"
  AlarmTally sparse;                          // far apart
  AlarmTally storm;                           // as fast as they can be set
  std::map<uint64_t, AlarmTally> periods;     // by period, from 1
  std::map<std::string, AlarmTally> skid;     // by condition: "strings", "mixed+interrupts"
  std::map<uint64_t, LandingTally> landings;  // by margin
  CostFigures costs;
  std::vector<TscStretch> tsc;
  std::map<std::string, std::string> skipped;  // what could not be measured here, and why

  // Lateness of all alarms with long periods, over all shapes.
  Histogram skid_of_all() const;
  uint64_t alarms_missing() const;
  bool operator==(const Measurements&) const = default;
};

nlohmann::json to_json(const Measurements& measured);
// Nothing for what to_json does not write.
std::optional<Measurements> measurements_from_json(const nlohmann::json& json);

}  // namespace us::calib
