#include "calib/state_file.h"

#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <iterator>

#include "base/crc32c.h"
#include "base/draft_file.h"

namespace us::calib {
namespace {

using nlohmann::json;

uint32_t checksum(const std::string& text) {
  return crc32c({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

std::optional<CampaignState> parse(const std::string& text, const std::string& campaign,
                                   std::string& why) {
  const json file = json::parse(text, nullptr, false);
  why = "is no state of a calibration, or a damaged one";
  if (!file.is_object() || file.value("schema", "") != kStateSchema) return std::nullopt;
  const json content = file.value("content", json());
  if (file.value("crc32c", uint32_t{0}) != checksum(content.dump())) return std::nullopt;
  CampaignState state{.campaign = content.value("campaign", ""),
                      .done = content.value("done", uint64_t{0})};
  auto measured = measurements_from_json(content.value("measured", json()));
  if (!measured) return std::nullopt;
  why = "is of another campaign";
  if (state.campaign != campaign) return std::nullopt;
  state.measured = std::move(*measured);
  why.clear();
  return state;
}

}  // namespace

Status save_state(const CampaignState& state, const std::filesystem::path& path) {
  const json content{
      {"campaign", state.campaign}, {"done", state.done}, {"measured", to_json(state.measured)}};
  const json file{
      {"schema", kStateSchema}, {"crc32c", checksum(content.dump())}, {"content", content}};
  DraftFile draft(path);
  draft.write(file.dump());
  if (draft.commit()) return Done{};
  return UserError{.id = "CAL-003",
                   .exit_code = ExitCode::kHostCannot,
                   .what = fmt::format("cannot keep what was measured in {}", path.string()),
                   .seen = std::strerror(draft.error()),
                   .needed = "a folder that can be written, with free space",
                   .mend = "name another place with -o, or free space"};
}

std::optional<CampaignState> load_state(const std::filesystem::path& path,
                                        const std::string& campaign, std::string& why) {
  why.clear();
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  try {
    return parse(text, campaign, why);
  } catch (const json::exception&) {  // a member of another type than ours
    return std::nullopt;
  }
}

}  // namespace us::calib
