// Which of the known troubles of counters (pmu/quirks.h) the measurements show, each with what
// shows it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "calib/measurements.h"
#include "calib/tail.h"
#include "pmu/quirks.h"

namespace us::calib {

struct Diagnosis {
  pmu::Quirk quirk;
  std::string evidence;
};

// False alarms of the tests that chance enters: less than one in ten million each.
constexpr double kFalseAlarm = 1e-7;

std::optional<Diagnosis> taken_only_event(const Measurements& measured);
std::optional<Diagnosis> host_interrupt_overcount(const Measurements& measured);
std::optional<Diagnosis> smi_leak(const Measurements& measured);
std::optional<Diagnosis> lost_overflow(const Measurements& measured);
std::optional<Diagnosis> throttling(const Measurements& measured);
// 32 or 128, whichever it is.
std::optional<Diagnosis> minimum_period(const Measurements& measured);
std::optional<Diagnosis> unbounded_skid(const TailFit& tail, const Interval& reach);

std::vector<Diagnosis> diagnose(const Measurements& measured, const TailFit& tail,
                                const Interval& reach);

// What a period of 1 is raised to: the truth lies within. 1 where nothing is raised.
Interval raised_period(const Measurements& measured);

// Every stretch of code was counted right to the branch.
bool exact(const Measurements& measured);

}  // namespace us::calib
