#include "pmu/counter.h"

#include <fmt/format.h>

namespace us::pmu {

const char* describe(CounterError error) {
  switch (error) {
    case CounterError::kUnavailable: return "the counter cannot be had";
    case CounterError::kLost: return "the counter was taken away while counting";
    case CounterError::kTooClose: return "an alarm nearer than the minimum period";
    case CounterError::kPast: return "an alarm that is not ahead";
  }
  return "?";
}

std::string to_text(const CounterHealth& health) {
  return fmt::format(
      "alarms armed {}, fired {}, missed {}, throttled {}; largest skid {}; counter {}",
      health.alarms_armed, health.alarms_fired, health.alarms_missed, health.throttled,
      health.skid_max, health.lost ? "LOST" : "kept");
}

}  // namespace us::pmu
