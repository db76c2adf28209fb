// The JSON that --stats writes. Keys are stable; new ones may come.
#pragma once

#include <nlohmann/json.hpp>

#include "hv/machine.h"
#include "tools/session.h"

namespace us::tools {

// instructions, branches, wall_seconds, guest_seconds, exit, outcome: what every verb that runs a
// guest reports.
nlohmann::json run_stats(hv::Machine& machine, const Outcome& outcome, double wall_seconds);

}  // namespace us::tools
