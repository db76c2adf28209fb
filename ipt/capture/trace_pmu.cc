#include "ipt/capture/trace_pmu.h"

#include <bit>
#include <charconv>
#include <fmt/format.h>

#include "base/check.h"
#include "ipt/epoch_digest.h"

namespace us::ipt {
namespace {

constexpr const char* kFolder = "/sys/bus/event_source/devices/intel_pt";
// IA32_RTIT_CTL[27:24] = n: a PSB every 2^(n+11) bytes.
constexpr unsigned kPsbShift = 11, kPsbMax = 15;

struct BitRange {
  unsigned low = 0, high = 0;
};

std::optional<uint64_t> number(std::string_view text, int base) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// "config:13", "config:24-27".
std::optional<BitRange> bit_range(const std::optional<std::string>& format) {
  constexpr std::string_view kPrefix = "config:";
  if (!format || !format->starts_with(kPrefix)) return std::nullopt;
  const std::string_view bits = std::string_view(*format).substr(kPrefix.size());
  const size_t dash = bits.find('-');
  const auto low = number(bits.substr(0, dash), 10);
  const auto high = dash == std::string_view::npos ? low : number(bits.substr(dash + 1), 10);
  if (!low || !high || *low > *high || *high > 63) return std::nullopt;
  return BitRange{static_cast<unsigned>(*low), static_cast<unsigned>(*high)};
}

UserError no_trace(std::string seen, std::string mend) {
  return {
      .id = "IPT-003",
      .exit_code = ExitCode::kHostCannot,
      .what = "this host has no Intel PT that could trace a guest",
      .seen = std::move(seen),
      .needed = "the kernel's intel_pt, with output to many regions and a choice of PSB periods",
      .mend = std::move(mend)};
}

constexpr const char* kOtherHost = "use bare metal with an Intel processor from Broadwell on";
constexpr const char* kOtherKernel = "run Debian's kernel";

}  // namespace

Result<TracePmu> find_trace_pmu(TraceHost& host) {
  const auto file = [&](std::string_view name) {
    return host.read_file(fmt::format("{}/{}", kFolder, name));
  };
  const auto cap = [&](std::string_view name) -> uint64_t {
    const auto text = file(fmt::format("caps/{}", name));
    return text ? number(*text, 16).value_or(0) : 0;
  };
  TracePmu pmu;
  const auto type_text = file("type");
  if (!type_text) return no_trace("no intel_pt among the event sources", kOtherHost);
  const auto type = number(*type_text, 10);
  if (!type || *type > UINT32_MAX)
    return no_trace(fmt::format("intel_pt/type reads \"{}\"", *type_text), kOtherKernel);
  pmu.type = static_cast<uint32_t>(*type);
  if (cap("topa_multiple_entries") == 0)
    return no_trace("output to one region only (topa_multiple_entries 0)", kOtherHost);
  if (cap("psb_cyc") == 0) return no_trace("no choice of PSB periods (psb_cyc 0)", kOtherHost);
  // Where the bits are is the kernel's to say; what a digest of this trace is called by, and
  // compared under, is kWitnessConfig.
  for (const char* name : {"pt", "noretcomp", "branch"}) {
    const auto bits = bit_range(file(fmt::format("format/{}", name)));
    if (!bits || bits->low != bits->high)
      return no_trace(fmt::format("no one bit for format/{}", name), kOtherKernel);
    pmu.config |= uint64_t{1} << bits->low;
  }
  if (pmu.config != kWitnessConfig)
    return no_trace(fmt::format("config bits {:#x}, not {:#x}", pmu.config, kWitnessConfig),
                    kOtherKernel);
  const auto period = bit_range(file("format/psb_period"));
  const uint64_t periods = cap("psb_periods") & ((1u << (kPsbMax + 1)) - 1);
  if (!period || period->high - period->low != 3 || periods == 0)
    return no_trace(fmt::format("PSB periods {:#x}", periods), kOtherKernel);
  // The longest: a PSB forces out what could share a packet, and nothing here needs one.
  const auto n = static_cast<unsigned>(std::bit_width(periods) - 1);
  pmu.config |= uint64_t{n} << period->low;
  pmu.psb_period = uint64_t{1} << (n + kPsbShift);
  pmu.linear_addresses = cap("payloads_lip") != 0;
  return pmu;
}

perf_event_attr make_trace_attr(const TracePmu& pmu, TraceScope scope, uint32_t aux_watermark) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = pmu.type;
  attr.config = pmu.config;
  attr.disabled = 1;
  // Lost hardware shows as an error state, not as a hole in the trace.
  attr.pinned = 1;
  // intel_pt has OS and USR from these and looks at no other exclusion; a guest's kernel and its
  // programs are both wanted. Neither of them: only our kvm modules set the two in the guest.
  const bool guest_only = scope == TraceScope::kGuestOnly;
  attr.exclude_kernel = guest_only ? 1 : 0;
  attr.exclude_user = guest_only ? 1 : 0;
  attr.aux_watermark = aux_watermark;
  // Records are few: waking is left to the trace itself.
  attr.watermark = 1;
  attr.wakeup_watermark = 1;
  return attr;
}

}  // namespace us::ipt
