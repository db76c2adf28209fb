#include "pmu/quirks.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace us::pmu {
namespace {

constexpr QuirkInfo kQuirks[] = {
    {Quirk::kHostInterruptOvercount, "host-interrupt-overcount", "",
     "user-mode counting on most parts; not expected of guest-only counting",
     "a host interrupt adds to the count", "exact loops under a storm of timer signals",
     QuirkEffect::kRefuse, "count guest-only (exclude_host) or use another host"},
    {Quirk::kPmiOvercount, "pmi-overcount", "rr: Xen PMI", "Xen guests",
     "the counter runs on while its own overflow is handled",
     "a period of 499 over exactly 500 branches must not give more than 500", QuirkEffect::kRefuse,
     "record on bare metal or under another hypervisor"},
    {Quirk::kSmiLeak, "smi-leak", "rr #3045", "seen on i7-1185G7 and i7-10610U",
     "branches of system management mode leak in, by large random amounts", "freeze_on_smi reads 0",
     QuirkEffect::kRefuse, "write 1 to /sys/devices/cpu/freeze_on_smi"},
    {Quirk::kMinimumPeriod32, "minimum-period-32", "", "Nehalem, Haswell",
     "overflow periods under 32 are raised to 32", "a period of 1 fires at 32",
     QuirkEffect::kHandled, "nearer targets are stepped"},
    {Quirk::kMinimumPeriod128, "minimum-period-128", "",
     "Broadwell and Haswell for INST_RETIRED; Sapphire Rapids for precise events",
     "overflow periods under 128 are raised to 128", "a period of 1 fires at 128",
     QuirkEffect::kHandled, "nearer targets are stepped"},
    {Quirk::kLostOverflow, "lost-overflow", "", "some hypervisors",
     "an overflow raises no interrupt", "every one of many alarms must fire", QuirkEffect::kRefuse,
     "record on bare metal"},
    {Quirk::kThrottling, "throttling", "", "any, by perf_event_max_sample_rate",
     "perf stops a sampling event that fires too often, and it stops counting",
     "a storm of short alarms", QuirkEffect::kHandled,
     "the clock is an event of its own; raise kernel.perf_event_max_sample_rate"},
    {Quirk::kTakenOnlyEvent, "taken-only-event", "", "Ice Lake and later with code 0x01c4",
     "only taken branches count", "loops of not-taken branches beside loops of taken ones",
     QuirkEffect::kRefuse, "use code 0x11c4"},
    {Quirk::kTransactionalCheckpoint, "transactional-checkpoint", "KVM IN_TXCP", "TSX under KVM",
     "counts of aborted transactions are not taken back", "the period test of pmi-overcount",
     QuirkEffect::kHandled, "the guest is offered no TSX"},
    {Quirk::kUnboundedSkid, "unbounded-skid", "rr: Zen", "AMD Zen 1 to 5",
     "skid has rare tails of thousands of branches", "many alarms", QuirkEffect::kHandled,
     "a large margin; overshoots are reported"},
    {Quirk::kSpecLockMap, "spec-lock-map", "rr: Zen SpecLockMap", "AMD Zen",
     "speculative lock mapping disturbs the count",
     "event 0x25 umask 0x08 must not move on a locked add", QuirkEffect::kRefuse,
     "turn SpecLockMap off (MSR 0xc0011020 bit 54)"},
};
static_assert(std::size(kQuirks) == kQuirkCount);

}  // namespace

std::span<const QuirkInfo> all_quirks() { return kQuirks; }

const QuirkInfo& info_of(Quirk quirk) {
  const auto index = static_cast<size_t>(quirk);
  US_CHECK(index < kQuirkCount && kQuirks[index].quirk == quirk, "quirk {}", index);
  return kQuirks[index];
}

std::optional<Quirk> quirk_by_name(std::string_view name) {
  for (const QuirkInfo& info : kQuirks) {
    if (info.name == name) return info.quirk;
  }
  return std::nullopt;
}

}  // namespace us::pmu
