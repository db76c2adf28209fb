// A host's profile: what was measured about its branch counter, as TOML. `understudy calibrate`
// writes it, recordings keep it, landing takes its margin from it. For the software processor the
// same file describes the counter to be modelled.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "pmu/model.h"
#include "pmu/quirks.h"

namespace us::pmu {

constexpr char kProfileSchema[] = "understudy.host-profile.v1";
constexpr uint64_t kMarginMax = 1'000'000;       // branches
constexpr uint64_t kMinimumPeriodMax = 100'000;  // branches
constexpr size_t kProfileBytesMax = 256 * 1024;
// As `event`: there was no counter, and what was measured is stepping.
constexpr char kStepsEvent[] = "steps";

enum class Confidence : uint8_t {
  kMeasured,  // on this very host
  kTable,     // from the table of microarchitectures
  kModel,     // of a modelled counter: exact by construction
};

// What a machine lands by, and so what a profile for it must speak of.
enum class LandsBy : uint8_t {
  kModel,    // the software processor's own counter, or one modelled after the profile
  kCounter,  // the host's
  kSteps,    // no counter: every instruction is stepped
};

struct HostIdentity {
  std::string cpu{};     // brand string
  std::string vendor{};  // "GenuineIntel"
  uint32_t family = 0;
  uint32_t model = 0;
  uint32_t stepping = 0;
  std::string microcode{};  // as the kernel prints it
  std::string kernel{};     // uname -r
  bool operator==(const HostIdentity&) const = default;
};

struct SkidStatistics {
  uint64_t p50 = 0, p99 = 0, max = 0;  // branches
  uint64_t samples = 0;
  // Where the true p50 and p99 lie with the tail's confidence; all zero: not known.
  uint64_t p50_low = 0, p50_high = 0, p99_low = 0, p99_high = 0;
  bool operator==(const SkidStatistics&) const = default;
};

// How far skid reaches: the least margin that overshoots no more often than wanted.
struct TailStatistics {
  std::string kind{};                                 // "ceiling", "pareto", "unknown"
  uint64_t reach = 0, reach_low = 0, reach_high = 0;  // branches; high kReachMax: no bound known
  double overshoot_probability = 0;                   // of one landing, as wanted
  double confidence = 0;  // of all intervals here and in [skid], at once
  bool operator==(const TailStatistics&) const = default;
};
// The host's time stamp counter, against CLOCK_MONOTONIC_RAW.
struct TscStatistics {
  double hz = 0, hz_low = 0, hz_high = 0;           // ticks a second
  double drift = 0, drift_low = 0, drift_high = 0;  // of that, parts per million an hour
  double seconds = 0;                               // that it was watched
  std::string clock_source{};  // what the kernel's clocks read; "tsc": the counter itself
  bool operator==(const TscStatistics&) const = default;
};
constexpr uint64_t kReachMax = 0x7fffffffffffffff;

struct ModelSettings {
  SkidModel skid{};
  uint64_t seed = 1;
  Misbehaviour misbehaviour{};
  bool operator==(const ModelSettings&) const = default;
};

struct HostProfile {
  std::string event{};          // libpfm name, "BR_INST_RETIRED:COND"
  uint64_t config = 0;          // perf config; 0: modelled
  uint64_t margin = 0;          // branches before the target at which the alarm is set
  uint64_t minimum_period = 1;  // branches; nearer targets are stepped
  bool exact = false;           // the clock passed its self-test
  Confidence confidence = Confidence::kTable;
  std::string date{};           // YYYY-MM-DD
  std::vector<Quirk> quirks{};  // seen on this host
  HostIdentity host{};
  std::optional<SkidStatistics> skid{};
  std::optional<TailStatistics> tail{};
  std::map<std::string, double> overcount{};  // probe -> branches too many per million
  std::optional<double> step_ns{};            // cost of one precise step
  std::optional<double> read_ns{};            // cost of reading the clock
  std::optional<double> arm_ns{};             // cost of setting an alarm
  std::optional<double> trace_mb_per_s{};
  std::optional<TscStatistics> tsc{};
  std::optional<ModelSettings> model{};  // for the software processor

  bool operator==(const HostProfile&) const = default;
};

// `name` (a file's) goes into errors: PMU-002 syntax, PMU-003 a key missing, PMU-004 an unknown
// key, PMU-005 a value of the wrong type or out of range, PMU-006 an unknown quirk, PMU-007 another
// schema, PMU-008 a skid model. All but PMU-003 and PMU-007 name line and key.
Result<HostProfile> parse_profile(std::string_view toml, const std::string& name);
// PMU-001 where the file cannot be read.
Result<HostProfile> load_profile(const std::filesystem::path& path);

std::string to_toml(const HostProfile& profile);
// Whole or not at all; PMU-009 where it cannot be written.
Status save_profile(const HostProfile& profile, const std::filesystem::path& path);

// What the software processor uses when no profile is given: Skylake-like skid, margin above it.
HostProfile default_model_profile();
// Options for a PmuModel; a profile without a [model] table gives an ideal counter.
ModelOptions model_options(const HostProfile& profile);

// PMU-010: quirks of the profile that make the host unfit to record; nothing: fit.
std::optional<UserError> refuse_to_record(const HostProfile& profile, const std::string& name);

// PMU-023: the profile is of something else than what the machine lands by, and its margin means
// nothing there; nothing: it may be used. A model takes any profile, and so does stepping, which no
// margin of a counter can lead astray, but for a model's.
std::optional<UserError> refuse_other_counter(const HostProfile& profile, LandsBy lands_by,
                                              const std::string& name);

}  // namespace us::pmu
