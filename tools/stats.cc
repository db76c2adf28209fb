#include "tools/stats.h"

namespace us::tools {

nlohmann::json run_stats(hv::Machine& machine, const Outcome& outcome, double wall_seconds) {
  const hv::ExecutionPoint point = machine.point();
  return {
      {"schema", "understudy/stats/1"},
      {"instructions", point.instructions.value},
      {"branches", point.branches.value},
      {"wall_seconds", wall_seconds},
      {"guest_seconds", static_cast<double>(machine.now().value) / static_cast<double>(hv::kTscHz)},
      {"exit", static_cast<int>(outcome.code)},
      {"outcome", outcome.text}};
}

}  // namespace us::tools
