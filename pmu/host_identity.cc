#include "pmu/host_identity.h"

#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <sys/utsname.h>

#include "pmu/events.h"

namespace us::pmu {
namespace {

bool differs(const std::string& then, const std::string& now) {
  return !then.empty() && then != now;
}

std::string text_of(const HostIdentity& host) {
  return fmt::format("{} family {:#x} model {:#x} stepping {} ({})", host.vendor, host.family,
                     host.model, host.stepping, host.cpu);
}

UserError refused(const char* id, const std::string& name, std::string seen, std::string needed) {
  return {.id = id,
          .exit_code = ExitCode::kIncompatible,
          .what = fmt::format("the host profile {} is not this host's", name),
          .seen = std::move(seen),
          .needed = std::move(needed),
          .mend = fmt::format("measure this host: `understudy calibrate --backend perf -o {}`; "
                              "`understudy calibrate compare` says what has changed",
                              name)};
}

}  // namespace

std::string cpuinfo_value(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t colon = line.find(':');
    if (!line.starts_with(key) || colon == std::string_view::npos) continue;
    const std::string_view between = line.substr(key.size(), colon - key.size());
    if (between.find_first_not_of(" \t") != std::string_view::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string_view::npos ? "" : std::string(line.substr(begin));
  }
  return "";
}

HostIdentity this_host() {
  const CpuId cpu = this_cpu();
  std::ifstream file("/proc/cpuinfo");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  utsname kernel{};
  ::uname(&kernel);
  return {.cpu = cpuinfo_value(text, "model name"),
          .vendor = cpu.vendor,
          .family = cpu.family,
          .model = cpu.model,
          .stepping = cpu.stepping,
          .microcode = cpuinfo_value(text, "microcode"),
          .kernel = kernel.release};
}

std::optional<UserError> refuse_foreign(const HostProfile& profile, const HostIdentity& here,
                                        const std::string& name) {
  const HostIdentity& there = profile.host;
  if (profile.confidence != Confidence::kMeasured || profile.model) return std::nullopt;
  if (there.vendor.empty()) return std::nullopt;
  if (there.vendor != here.vendor || there.family != here.family || there.model != here.model ||
      there.stepping != here.stepping)
    return refused("PMU-021", name, "measured on " + text_of(there), text_of(here));
  if (differs(there.microcode, here.microcode))
    return refused("PMU-022", name, fmt::format("measured with microcode {}", there.microcode),
                   fmt::format("microcode {}, which runs now", here.microcode));
  if (differs(there.kernel, here.kernel))
    return refused("PMU-022", name, fmt::format("measured under kernel {}", there.kernel),
                   fmt::format("kernel {}, which runs now", here.kernel));
  return std::nullopt;
}

}  // namespace us::pmu
