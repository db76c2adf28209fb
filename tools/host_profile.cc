#include "tools/host_profile.h"

#include "pmu/host_identity.h"

namespace us::tools {

Result<pmu::HostProfile> load_host_profile(const std::string& path) {
  auto profile = pmu::load_profile(path);
  if (!profile.ok()) return profile;
  if (auto refused = pmu::refuse_foreign(*profile, pmu::this_host(), path)) return *refused;
  return profile;
}

}  // namespace us::tools
