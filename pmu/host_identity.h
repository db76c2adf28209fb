// Which host this is, and whether a profile that was measured on one still speaks of it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "pmu/profile.h"

namespace us::pmu {

// By CPUID, /proc/cpuinfo (brand and microcode) and uname(2).
HostIdentity this_host();
// The first processor's "microcode" or "model name" in a text like /proc/cpuinfo; else empty.
std::string cpuinfo_value(std::string_view text, std::string_view key);

// Whether landing may use a measured profile on `here`; nothing: it may. PMU-021: it is another
// processor's; PMU-022: this one's, but microcode or kernel have changed since. What a profile does
// not say is no reason, nor is the host where a counter is modelled: that is the same anywhere.
std::optional<UserError> refuse_foreign(const HostProfile& profile, const HostIdentity& here,
                                        const std::string& name);

}  // namespace us::pmu
