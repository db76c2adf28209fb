#include "tools/stats.h"

#include "hv/core/executor.h"

namespace us::tools {

nlohmann::json run_stats(hv::Machine& machine, const Outcome& outcome, double wall_seconds) {
  const hv::ExecutionPoint point = machine.point();
  return {
      {"schema", "understudy/stats/1"},
      {"instructions", point.instructions.value},
      {"branches", point.branches.value},
      {"wall_seconds", wall_seconds},
      {"guest_seconds", static_cast<double>(machine.now().value) / static_cast<double>(hv::kTscHz)},
      {"executor", hv::name_of(hv::default_executor())},
      {"exit", static_cast<int>(outcome.code)},
      {"outcome", outcome.text}};
}

void add_traced(nlohmann::json& stats, const replay::WitnessCounters& counters,
                const replay::Witness& witness) {
  stats["trace_bytes"] = witness.bytes();
  stats["ipt_epochs"] = counters.epochs;
  stats["ipt_unknown"] = counters.unknown;
  stats["ipt_counter_mismatches"] = counters.counter_mismatches;
}

}  // namespace us::tools
