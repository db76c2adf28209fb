// The file that keeps what a campaign has measured so far, so that it can go on where it was
// stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "calib/measurements.h"

namespace us::calib {

constexpr char kStateSchema[] = "understudy.calibration-state.v1";

struct CampaignState {
  // What was asked for, and on which host: another campaign's state is of no use.
  std::string campaign;
  uint64_t done = 0;  // chunks
  Measurements measured;
};

// Whole or not at all. CAL-003.
Status save_state(const CampaignState& state, const std::filesystem::path& path);
// Nothing: there is no such file, or it is damaged or another campaign's; `why` says which.
std::optional<CampaignState> load_state(const std::filesystem::path& path,
                                        const std::string& campaign, std::string& why);

}  // namespace us::calib
