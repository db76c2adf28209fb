// Which event counts retired conditional branches on which processor, and how perf is asked for it.
#pragma once

#include <cstdint>
#include <linux/perf_event.h>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace us::pmu {

enum class CoreType : uint8_t { kOnly, kPerformance, kEfficient };  // CPUID 0x1A on hybrid parts

struct CpuId {
  std::string vendor{};  // "GenuineIntel", "AuthenticAMD"
  uint32_t family = 0;   // displayed family: extended added
  uint32_t model = 0;    // displayed model
  uint32_t stepping = 0;
  CoreType core = CoreType::kOnly;
};
// Of the processor this runs on. SDM 2A CPUID.
CpuId this_cpu();

struct EventRow {
  std::string_view name;       // "Ice Lake-X"
  std::string_view pfm_pmus;   // libpfm names of the PMU, best first, separated by commas
  std::string_view pfm_event;  // the event's name there
  uint64_t config;             // perf config, for kernels and libraries that know no names
  uint32_t skid;               // a margin to begin with, in branches, until calibrated
  bool skid_bounded;           // false: rare tails far above it
  bool needs_freeze_on_smi;    // /sys/devices/cpu/freeze_on_smi must read 1
};

// Nothing: a processor we do not know, and must not guess at.
const EventRow* find_event(const CpuId& cpu);
std::span<const EventRow> all_events();

// The code libpfm has for the row's event, and which of its PMUs knew it; nothing where none did.
struct PfmEncoding {
  uint64_t config = 0;
  std::string canonical{};  // "spr::BR_INST_RETIRED:COND:..."
};
// `inactive` encodes for processors other than this one: only for tests, before any other use.
std::optional<PfmEncoding> pfm_encode(const EventRow& row, bool inactive = false);

enum class EventRole : uint8_t {
  kClock,  // never reprogrammed; the count is the clock
  kAlarm,  // sampling; the period is set before each run
};
enum class EventScope : uint8_t {
  kGuest,  // the guest, in user and kernel mode; never the host
  kUser,   // this thread's own code in user mode: for measuring the counter itself
};
// An event pinned, with the exclude bits set by us: libpfm's modifiers do not exclude the host.
// The library's code must agree with the table's, else PMU-012.
Result<perf_event_attr> make_event(const EventRow& row, EventRole role,
                                   EventScope scope = EventScope::kGuest);

// Checked by make_event, and again by who opens the event.
bool counts_guest_only(const perf_event_attr& attr);
bool counts_user_only(const perf_event_attr& attr);
bool counts_only(const perf_event_attr& attr, EventScope scope);

}  // namespace us::pmu
