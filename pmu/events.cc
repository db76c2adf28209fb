#include "pmu/events.h"

#include <cpuid.h>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <mutex>
#include <perfmon/pfmlib_perf_event.h>

#include "base/check.h"

namespace us::pmu {
namespace {

constexpr std::string_view kIntelEvent = "BR_INST_RETIRED:COND";  // an alias from Haswell on
constexpr std::string_view kAmdEvent = "RETIRED_CONDITIONAL_BRANCH_INSTRUCTIONS";

// Intel: on Ice Lake and later the old code 0x01c4 is *taken* branches only (SDM 3B 20, event
// tables); all conditional ones are 0x11c4. Skid figures are rr's. AMD's tail is long: PPR,
// PMCx0D1.
constexpr EventRow kRows[] = {
    {"Haswell", "hsw,hsw_ep", kIntelEvent, 0x01c4, 100, true, false},
    {"Broadwell", "bdw,bdw_ep", kIntelEvent, 0x01c4, 100, true, false},
    {"Skylake", "skl", kIntelEvent, 0x01c4, 100, true, false},
    {"Comet Lake", "skl", kIntelEvent, 0x01c4, 100, true, true},
    {"Skylake-X", "skx", kIntelEvent, 0x01c4, 100, true, false},
    {"Cascade Lake", "clx", kIntelEvent, 0x01c4, 100, true, false},
    {"Ice Lake", "icl", kIntelEvent, 0x11c4, 100, true, true},
    {"Ice Lake-X", "icx", kIntelEvent, 0x11c4, 100, true, true},
    {"Sapphire Rapids", "spr", kIntelEvent, 0x11c4, 125, true, true},
    // Its event table is Sapphire Rapids'; older libraries know only that.
    {"Emerald Rapids", "emr,spr", kIntelEvent, 0x11c4, 125, true, true},
    {"Granite Rapids", "gnr", kIntelEvent, 0x11c4, 125, true, true},
    {"Alder Lake P-core", "adl_glc", kIntelEvent, 0x11c4, 125, true, true},
    {"Alder Lake E-core", "adl_grt", kIntelEvent, 0x7ec4, 100, true, true},
    // With umask2, bits 40-47 of the config.
    {"Lunar Lake P-core", "", kIntelEvent, 0x100000011c4, 125, true, true},
    {"Zen", "amd64_fam17h_zen1", kAmdEvent, 0xd1, 10000, false, false},
    {"Zen 2", "amd64_fam17h_zen2", kAmdEvent, 0xd1, 10000, false, false},
    {"Zen 3", "amd64_fam19h_zen3", kAmdEvent, 0xd1, 10000, false, false},
    {"Zen 4", "amd64_fam19h_zen4", kAmdEvent, 0xd1, 10000, false, false},
    {"Zen 5", "amd64_fam1ah_zen5", kAmdEvent, 0xd1, 10000, false, false},
};

struct ModelRange {
  uint32_t family;
  uint32_t first;  // model
  uint32_t last;
  std::string_view row;
};

// Models as in Linux' intel-family.h; efficient cores of hybrid parts are picked out before.
constexpr ModelRange kIntelModels[] = {
    {6, 0x3c, 0x3c, "Haswell"},           {6, 0x3f, 0x3f, "Haswell"},
    {6, 0x45, 0x46, "Haswell"},           {6, 0x3d, 0x3d, "Broadwell"},
    {6, 0x47, 0x47, "Broadwell"},         {6, 0x4f, 0x4f, "Broadwell"},
    {6, 0x56, 0x56, "Broadwell"},         {6, 0x4e, 0x4e, "Skylake"},
    {6, 0x5e, 0x5e, "Skylake"},           {6, 0x8e, 0x8e, "Skylake"},
    {6, 0x9e, 0x9e, "Skylake"},           {6, 0xa5, 0xa6, "Comet Lake"},
    {6, 0x7d, 0x7e, "Ice Lake"},          {6, 0x8c, 0x8d, "Ice Lake"},
    {6, 0xa7, 0xa7, "Ice Lake"},          {6, 0x6a, 0x6a, "Ice Lake-X"},
    {6, 0x6c, 0x6c, "Ice Lake-X"},        {6, 0x8f, 0x8f, "Sapphire Rapids"},
    {6, 0xcf, 0xcf, "Emerald Rapids"},    {6, 0xad, 0xae, "Granite Rapids"},
    {6, 0x97, 0x97, "Alder Lake P-core"}, {6, 0x9a, 0x9a, "Alder Lake P-core"},
    {6, 0xb7, 0xb7, "Alder Lake P-core"}, {6, 0xba, 0xba, "Alder Lake P-core"},
    {6, 0xbf, 0xbf, "Alder Lake P-core"}, {6, 0xbe, 0xbe, "Alder Lake E-core"},
    {6, 0xbd, 0xbd, "Lunar Lake P-core"}, {6, 0xb5, 0xb5, "Lunar Lake P-core"},
    {6, 0xc5, 0xc6, "Lunar Lake P-core"},
};

constexpr ModelRange kAmdModels[] = {
    {0x17, 0x00, 0x2f, "Zen"},   {0x17, 0x30, 0xff, "Zen 2"}, {0x19, 0x00, 0x0f, "Zen 3"},
    {0x19, 0x20, 0x5f, "Zen 3"}, {0x19, 0x10, 0x1f, "Zen 4"}, {0x19, 0x60, 0xaf, "Zen 4"},
    {0x1a, 0x00, 0xff, "Zen 5"},
};

const EventRow* row_named(std::string_view name) {
  for (const EventRow& row : kRows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

const EventRow* find_in(std::span<const ModelRange> ranges, const CpuId& cpu) {
  for (const ModelRange& range : ranges) {
    const bool hit =
        cpu.family == range.family && cpu.model >= range.first && cpu.model <= range.last;
    if (hit) return row_named(range.row);
  }
  return nullptr;
}

bool pfm_ready(bool inactive) {
  static std::once_flag once;
  static bool ready = false;
  std::call_once(once, [inactive] {
    // Read inside pfm_initialize; libpfm's manual, "ENVIRONMENT VARIABLES".
    if (inactive) ::setenv("LIBPFM_ENCODE_INACTIVE", "1", 1);
    ready = pfm_initialize() == PFM_SUCCESS;
  });
  return ready;
}

std::optional<PfmEncoding> encode_one(const std::string& event) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  char* canonical = nullptr;
  pfm_perf_encode_arg_t arg{};
  arg.size = sizeof arg;
  arg.attr = &attr;
  arg.fstr = &canonical;
  const int result =
      pfm_get_os_event_encoding(event.c_str(), PFM_PLM0 | PFM_PLM3, PFM_OS_PERF_EVENT_EXT, &arg);
  std::optional<PfmEncoding> out;
  if (result == PFM_SUCCESS) {
    out = PfmEncoding{attr.config, canonical != nullptr ? canonical : event};
  }
  std::free(canonical);
  return out;
}

}  // namespace

std::span<const EventRow> all_events() { return kRows; }

const EventRow* find_event(const CpuId& cpu) {
  if (cpu.vendor == "GenuineIntel") {
    const EventRow* row = find_in(kIntelModels, cpu);
    // Skylake-X and Cascade Lake share a model.
    if (cpu.family == 6 && cpu.model == 0x55) {
      row = row_named(cpu.stepping < 5 ? "Skylake-X" : "Cascade Lake");
    }
    const bool hybrid = row != nullptr && row->name == "Alder Lake P-core";
    if (cpu.core == CoreType::kEfficient) return hybrid ? row_named("Alder Lake E-core") : nullptr;
    return row;
  }
  if (cpu.vendor == "AuthenticAMD") return find_in(kAmdModels, cpu);
  return nullptr;
}

CpuId this_cpu() {
  CpuId cpu;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx) == 0) return cpu;
  const uint32_t highest = eax;
  char vendor[12];
  std::memcpy(vendor, &ebx, 4);
  std::memcpy(vendor + 4, &edx, 4);
  std::memcpy(vendor + 8, &ecx, 4);
  cpu.vendor.assign(vendor, sizeof vendor);
  __get_cpuid(1, &eax, &ebx, &ecx, &edx);
  cpu.family = eax >> 8 & 0xf;
  cpu.model = eax >> 4 & 0xf;
  cpu.stepping = eax & 0xf;
  if (cpu.family == 6 || cpu.family == 15) cpu.model |= (eax >> 16 & 0xf) << 4;
  if (cpu.family == 15) cpu.family += eax >> 20 & 0xff;
  if (highest >= 0x1a) {
    __cpuid_count(0x1a, 0, eax, ebx, ecx, edx);
    if (eax >> 24 == 0x20) cpu.core = CoreType::kEfficient;
    if (eax >> 24 == 0x40) cpu.core = CoreType::kPerformance;
  }
  return cpu;
}

std::optional<PfmEncoding> pfm_encode(const EventRow& row, bool inactive) {
  if (!pfm_ready(inactive)) return std::nullopt;
  std::string_view pmus = row.pfm_pmus;
  while (!pmus.empty()) {
    const size_t comma = pmus.find(',');
    if (auto encoding = encode_one(fmt::format("{}::{}", pmus.substr(0, comma), row.pfm_event))) {
      return encoding;
    }
    pmus.remove_prefix(comma == std::string_view::npos ? pmus.size() : comma + 1);
  }
  return std::nullopt;
}

bool counts_guest_only(const perf_event_attr& attr) {
  return attr.exclude_host == 1 && attr.exclude_guest == 0 && attr.exclude_hv == 1 &&
         attr.exclude_user == 0 && attr.exclude_kernel == 0 && attr.exclude_idle == 0;
}

bool counts_user_only(const perf_event_attr& attr) {
  return attr.exclude_host == 0 && attr.exclude_guest == 1 && attr.exclude_hv == 1 &&
         attr.exclude_user == 0 && attr.exclude_kernel == 1;
}

bool counts_only(const perf_event_attr& attr, EventScope scope) {
  return scope == EventScope::kGuest ? counts_guest_only(attr) : counts_user_only(attr);
}

Result<perf_event_attr> make_event(const EventRow& row, EventRole role, EventScope scope) {
  const auto encoding = pfm_encode(row);
  if (encoding && encoding->config != row.config) {
    return UserError{
        "PMU-012",
        ExitCode::kHostCannot,
        fmt::format("the branch event of {} is in doubt", row.name),
        fmt::format("libpfm encodes {} as {:#x}", encoding->canonical, encoding->config),
        fmt::format("{:#x}, which counts taken and not-taken branches", row.config),
        "update libpfm4, and report this"};
  }
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_RAW;
  attr.config = row.config;
  attr.exclude_host = scope == EventScope::kGuest;
  attr.exclude_guest = scope == EventScope::kUser;
  attr.exclude_kernel = scope == EventScope::kUser;
  attr.exclude_hv = 1;
  attr.pinned = 1;  // an error, and never multiplexed, where no counter is free
  attr.disabled = 1;
  if (role == EventRole::kAlarm) {
    // An event opened with period 0 can never sample: "never" is a period out of reach.
    attr.sample_period = uint64_t{1} << 60;
    attr.wakeup_events = 1;
  }
  US_CHECK(counts_only(attr, scope), "an event that counts what it should not");
  return attr;
}

}  // namespace us::pmu
