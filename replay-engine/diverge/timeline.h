// What came when on both sides: as lanes of text, and as trace-event JSON for Perfetto's viewer.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "replay-engine/diverge/report.h"
#include "replay-engine/diverge/side.h"

namespace us::replay {

// The lanes.
enum class TimelineLane : uint8_t { kAnchor, kFrame, kDisk, kConsole, kCommand, kEpoch };
constexpr size_t kTimelineLanes = 6;
const char* name_of(TimelineLane lane);

struct TimelineEvent {
  TimelineLane lane = TimelineLane::kAnchor;
  uint64_t ns = 0;  // guest time, by the anchors
  uint64_t branches = 0;
  uint64_t epoch = 0;  // kEpoch: the one that ends here
};

struct Timeline {
  std::string name;
  std::vector<TimelineEvent> events;
  uint64_t left_out = 0;  // past kTimelineEventsMax
  uint64_t end_ns = 0;

  // Guest time at a count of branches, by the events around it.
  uint64_t ns_at(uint64_t branches) const;
};

constexpr size_t kTimelineEventsMax = 200'000;

// From the log alone; damage ends it early. Errors: those of open_log.
Result<Timeline> read_timeline(const Side& side);

// A lane a line and side, `width` columns in all; the divergence marked below.
std::string timeline_text(const std::vector<Timeline>& sides, const DivergeReport& report,
                          size_t width);
// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: a process a
// side, a thread a lane; times in microseconds of guest time.
nlohmann::json timeline_json(const std::vector<Timeline>& sides, const DivergeReport& report);

}  // namespace us::replay
