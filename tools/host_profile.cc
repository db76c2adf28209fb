#include "tools/host_profile.h"

#include "pmu/host_identity.h"

namespace us::tools {

Result<pmu::HostProfile> load_host_profile(const std::string& path) {
  auto profile = pmu::load_profile(path);
  if (!profile.ok()) return profile;
  if (auto refused = pmu::refuse_foreign(*profile, pmu::this_host(), path)) return *refused;
  return profile;
}

Result<std::optional<pmu::HostProfile>> load_fit_profile(const std::string& path) {
  if (path.empty()) return std::optional<pmu::HostProfile>();
  auto profile = load_host_profile(path);
  if (!profile.ok()) return profile.error();
  if (auto refused = pmu::refuse_to_record(*profile, path)) return *refused;
  return std::optional(std::move(profile).value());
}

}  // namespace us::tools
