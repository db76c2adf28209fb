// What a calibration found, for programs and for people.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "calib/calibration.h"

namespace us::calib {

constexpr char kCalibrationSchema[] = "understudy.calibration.v1";

// `complete` false: the campaign was stopped before its end.
nlohmann::json report_json(const Calibration& calibration, const Measurements& measured,
                           const pmu::HostProfile& profile, const std::string& backend,
                           bool complete);
std::string report_text(const Calibration& calibration, const Measurements& measured,
                        const pmu::HostProfile& profile, bool complete);

}  // namespace us::calib
