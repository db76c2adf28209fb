// What the forms of `understudy calibrate` share: which host is measured, how thoroughly, for what.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "calib/calibration.h"
#include "tools/backend.h"
#include "tools/verbs.h"

namespace us::tools {

struct CalibrateOptions {
  std::string backend = "perf";  // soft, perf, kvm
  std::string out, plot, state;
  std::string pmu_profile, skid;  // soft: the counter to model
  BackendChoice guest;            // kvm: how its vCPU runs
  bool json = false, quick = false, thorough = false;
  uint64_t seed = 1;
  double overshoot_probability = 1e-6;
  double confidence = 0.99;
};

// A host to measure and, where it is the software processor, the counter it models.
struct MeasuredHost {
  std::shared_ptr<void> keeps = {};  // what the host refers to
  std::unique_ptr<calib::ExperimentHost> host;
  std::optional<pmu::ModelSettings> model;
};
// Errors: PMU-017 and PMU-018 a host without a usable counter, those of KvmExperimentHost::open,
// CAL-001 guests' options without guests, CAL-002 a model asked of a real counter, those of
// load_profile and parse_skid.
Result<MeasuredHost> open_measured(const CalibrateOptions& options);

// This host's own counter: of this program's user mode, of a guest.
Result<MeasuredHost> open_perf();
Result<MeasuredHost> open_kvm(const CalibrateOptions& options);

struct Measured {
  calib::Calibration calibration;
  calib::Measurements measurements;
  pmu::HostProfile profile;
  bool complete = true;
  uint64_t done = 0, total = 0;  // chunks
};
// All experiments; shows progress, keeps a state file if `options` name one, and stops when `stop`
// is set: then `complete` is false. CAL-005: it was stopped before anything could be said.
Result<Measured> measure(const CalibrateOptions& options, MeasuredHost& host, calib::Effort effort,
                         const std::atomic<bool>& stop, const Globals& globals);

// "2026-11-30"
std::string today();

// The subcommands `compare A B` and `check HOST.toml`.
void add_calibrate_compare(CLI::App& verb, int& exit_code);
void add_calibrate_check(CLI::App& verb, const Globals& globals, int& exit_code);

}  // namespace us::tools
