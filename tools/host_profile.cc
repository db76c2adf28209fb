#include "tools/host_profile.h"

#include "pmu/host_identity.h"

namespace us::tools {

Result<pmu::HostProfile> load_host_profile(const std::string& path, const BackendChoice& backend) {
  auto profile = pmu::load_profile(path);
  if (!profile.ok()) return profile;
  if (auto refused = pmu::refuse_foreign(*profile, pmu::this_host(), path)) return *refused;
  if (auto refused = pmu::refuse_other_counter(*profile, backend.lands_by(), path)) return *refused;
  return profile;
}

Result<std::optional<pmu::HostProfile>> load_fit_profile(const std::string& path,
                                                         const BackendChoice& backend) {
  if (path.empty()) return std::optional<pmu::HostProfile>();
  auto profile = load_host_profile(path, backend);
  if (!profile.ok()) return profile.error();
  if (auto refused = pmu::refuse_to_record(*profile, path)) return *refused;
  return std::optional(std::move(profile).value());
}

Result<pmu::HostProfile> profile_to_replay_with(const std::string& path,
                                                const std::optional<pmu::HostProfile>& recorded,
                                                const BackendChoice& backend) {
  if (!path.empty()) return load_host_profile(path, backend);
  const bool fits =
      recorded && !pmu::refuse_other_counter(*recorded, backend.lands_by(), "of the recording");
  return fits ? *recorded : uncalibrated_profile(backend);
}

}  // namespace us::tools
