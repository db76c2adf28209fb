// The host profile a user names.
#pragma once

#include <string>

#include "base/result.h"
#include "pmu/profile.h"

namespace us::tools {

// Errors: those of load_profile; PMU-021 and PMU-022 where it was measured on another host, or on
// this one before its microcode or kernel changed.
Result<pmu::HostProfile> load_host_profile(const std::string& path);

}  // namespace us::tools
