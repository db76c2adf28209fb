// What the measurements say about a host, and the profile that follows from it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "calib/campaign.h"
#include "calib/diagnosis.h"
#include "calib/margin.h"

namespace us::calib {

struct Wanted {
  double overshoot_probability = 1e-6;  // of one landing
  double confidence = 0.99;             // of everything stated, all of it at once
};

struct Calibration {
  Histogram skid;  // that the margin follows from: of all shapes, or of the worst where they differ
  std::string skid_of;  // "all" or the shape's name
  Interval p50, p99;
  TailFit tail;
  MarginChoice choice;
  UnitCosts costs;
  StopRate rate;
  bool costs_measured = false;  // else assumed
  Interval raised_period;
  uint64_t minimum_period = 1;
  std::vector<Diagnosis> diagnoses;
  bool exact = false;
  std::optional<TscRate> tsc;
  Wanted wanted;
};

// Nothing where no skid was measured yet.
std::optional<Calibration> analyse(const Measurements& measured, const Wanted& wanted);

// `model`: the counter to be modelled, where it is the software processor's. `date`: YYYY-MM-DD.
pmu::HostProfile profile_of(const Calibration& calibration, const Measurements& measured,
                            const ExperimentHost& host,
                            const std::optional<pmu::ModelSettings>& model,
                            const std::string& date);

}  // namespace us::calib
