// The JSON that --stats writes. Keys are stable; new ones may come.
#pragma once

#include <nlohmann/json.hpp>

#include "hv/machine.h"
#include "replay-engine/witness.h"
#include "tools/session.h"

namespace us::tools {

// instructions, branches, wall_seconds, guest_seconds, executor, exit, outcome: what every verb
// that runs a guest reports.
nlohmann::json run_stats(hv::Machine& machine, const Outcome& outcome, double wall_seconds);

// What a traced run adds: trace_bytes, ipt_epochs, ipt_unknown, ipt_counter_mismatches.
void add_traced(nlohmann::json& stats, const replay::WitnessCounters& counters,
                const replay::Witness& witness);

}  // namespace us::tools
