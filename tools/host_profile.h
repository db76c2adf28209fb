// The host profile a user names.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "pmu/profile.h"

namespace us::tools {

// Errors: those of load_profile; PMU-021 and PMU-022 where it was measured on another host, or on
// this one before its microcode or kernel changed.
Result<pmu::HostProfile> load_host_profile(const std::string& path);

// The same for a side that records or follows: also PMU-010 where the host is unfit for it. No
// path: no profile.
Result<std::optional<pmu::HostProfile>> load_fit_profile(const std::string& path);

}  // namespace us::tools
