// What real counters do wrong, by name. Each has a vendor's number where there is one, the parts it
// was seen on, its effect, the probe that shows it and what it means for recording.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace us::pmu {

enum class Quirk : uint8_t {
  kHostInterruptOvercount,
  kPmiOvercount,
  kSmiLeak,
  kMinimumPeriod32,
  kMinimumPeriod128,
  kLostOverflow,
  kThrottling,
  kTakenOnlyEvent,
  kTransactionalCheckpoint,
  kUnboundedSkid,
  kSpecLockMap,
};
constexpr size_t kQuirkCount = 11;

enum class QuirkEffect : uint8_t {
  kHandled,  // the engine works around it
  kRefuse,   // the clock is not exact: such a host must not record
};

struct QuirkInfo {
  Quirk quirk;
  std::string_view name;    // in profiles: "smi-leak"
  std::string_view number;  // vendor's id or tracker entry
  std::string_view parts;
  std::string_view effect;
  std::string_view probe;
  QuirkEffect on_recording;
  std::string_view remedy;
};

std::span<const QuirkInfo> all_quirks();
const QuirkInfo& info_of(Quirk quirk);
std::optional<Quirk> quirk_by_name(std::string_view name);

}  // namespace us::pmu
