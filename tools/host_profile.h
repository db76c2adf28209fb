// The host profile a user names, or a recording keeps.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "pmu/profile.h"
#include "tools/backend.h"

namespace us::tools {

// Errors: those of load_profile; PMU-021 and PMU-022 where it was measured on another host, or on
// this one before its microcode or kernel changed; PMU-023 where it is of another counter than
// machines of that backend land by.
Result<pmu::HostProfile> load_host_profile(const std::string& path, const BackendChoice& backend);

// The same for a side that records or follows: also PMU-010 where the host is unfit for it. No
// path: no profile.
Result<std::optional<pmu::HostProfile>> load_fit_profile(const std::string& path,
                                                         const BackendChoice& backend);

// What a recording is executed again with: the profile named now, else the recorded one, else what
// is known without any. A recorded one of another counter is passed over, for that is no fault of
// who replays: what was recorded by steps may be replayed with a counter. Errors: those of
// load_host_profile.
Result<pmu::HostProfile> profile_to_replay_with(const std::string& path,
                                                const std::optional<pmu::HostProfile>& recorded,
                                                const BackendChoice& backend);

}  // namespace us::tools
