#include "replay-engine/diverge/timeline.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "base/overloaded.h"

namespace us::replay {
namespace {

// Guest time as hv/core/clock.h has it, without its rule that it never falls: a hostile log may say
// anything.
class Clock {
 public:
  void set(const log::Anchor& anchor) { anchor_ = anchor; }
  uint64_t at(uint64_t branches) const {
    if (branches <= anchor_.branches) return anchor_.tsc;
    const auto ticks =
        static_cast<unsigned __int128>(branches - anchor_.branches) * anchor_.ticks_per_branch_q32;
    const auto now = anchor_.tsc + (ticks >> 32);
    return now < anchor_.tsc_ceiling ? static_cast<uint64_t>(now) : anchor_.tsc_ceiling;
  }

 private:
  log::Anchor anchor_;
};

std::optional<TimelineLane> lane_of(const log::Body& body) {
  using Lane = std::optional<TimelineLane>;
  return std::visit(Overloaded{[](const log::Anchor&) { return Lane(TimelineLane::kAnchor); },
                               [](const log::NetFrame&) { return Lane(TimelineLane::kFrame); },
                               [](const log::DiskDone&) { return Lane(TimelineLane::kDisk); },
                               [](const log::Console&) { return Lane(TimelineLane::kConsole); },
                               [](const log::Command&) { return Lane(TimelineLane::kCommand); },
                               [](const log::StateDigest&) { return Lane(TimelineLane::kEpoch); },
                               [](const auto&) { return Lane(); }},
                    body);
}

char density(uint64_t n) {
  if (n == 0) return '.';
  return n < 10 ? static_cast<char>('0' + n) : '#';
}

struct Mark {
  uint64_t branches = 0;
  const char* name = "";
};

// What is marked in both forms.
std::vector<Mark> marks_of(const DivergeReport& r) {
  std::vector<Mark> marks;
  if (!is_difference(r.verdict)) return marks;
  if (r.effect) marks.push_back({r.effect->before.branches.value, "states part"});
  if (r.fork) marks.push_back({r.fork->at.branches.value, "paths part"});
  if (marks.empty() && r.first_differing.point.branches.value != 0)
    marks.push_back({r.first_differing.point.branches.value, "first differing"});
  return marks;
}

double microseconds(uint64_t ns) { return static_cast<double>(ns) / 1e3; }

void add_landings(nlohmann::json& events, const Timeline& side, unsigned pid,
                  const std::vector<LandingSample>& landings) {
  for (const LandingSample& l : landings)
    events.push_back({{"name", "landing"},
                      {"ph", "i"},
                      {"s", "t"},
                      {"pid", pid},
                      {"tid", kTimelineLanes + 1},
                      {"ts", microseconds(side.ns_at(l.branches))},
                      {"args", {{"branches", l.branches}, {"steps", l.steps}}}});
}

nlohmann::json named(unsigned pid, unsigned tid, const char* what, const std::string& name) {
  return {{"name", what}, {"ph", "M"}, {"pid", pid}, {"tid", tid}, {"args", {{"name", name}}}};
}

void add_side(nlohmann::json& events, const Timeline& side, unsigned pid) {
  events.push_back(named(pid, 0, "process_name", side.name));
  for (unsigned lane = 0; lane < kTimelineLanes; ++lane)
    events.push_back(named(pid, lane + 1, "thread_name", name_of(static_cast<TimelineLane>(lane))));
  events.push_back(named(pid, kTimelineLanes + 1, "thread_name", "landings"));
  uint64_t epoch_began = 0;
  for (const TimelineEvent& e : side.events) {
    nlohmann::json j{{"pid", pid},
                     {"tid", static_cast<unsigned>(e.lane) + 1},
                     {"args", {{"branches", e.branches}}}};
    if (e.lane == TimelineLane::kEpoch) {
      j["name"] = fmt::format("epoch {}", e.epoch);
      j["ph"] = "X";
      j["ts"] = microseconds(epoch_began);
      j["dur"] = microseconds(e.ns - std::min(e.ns, epoch_began));
      epoch_began = e.ns;
    } else {
      j["name"] = name_of(e.lane);
      j["ph"] = "i";
      j["s"] = "t";
      j["ts"] = microseconds(e.ns);
    }
    events.push_back(std::move(j));
  }
}

}  // namespace

const char* name_of(TimelineLane lane) {
  constexpr const char* kNames[] = {"anchors", "frames", "disk", "console", "commands", "epochs"};
  return kNames[static_cast<size_t>(lane)];
}

uint64_t Timeline::ns_at(uint64_t branches) const {
  const auto after = std::partition_point(
      events.begin(), events.end(), [&](const TimelineEvent& e) { return e.branches <= branches; });
  if (after == events.begin()) return 0;
  const TimelineEvent& before = *(after - 1);
  if (after == events.end() || after->branches == before.branches) return before.ns;
  const double part = static_cast<double>(branches - before.branches) /
                      static_cast<double>(after->branches - before.branches);
  return before.ns + static_cast<uint64_t>(
                         part * static_cast<double>(after->ns - std::min(after->ns, before.ns)));
}

Result<Timeline> read_timeline(const Side& side) {
  auto stream = side.open_log();
  if (!stream.ok()) return stream.error();
  Timeline timeline{.name = side.name};
  Clock clock;
  for (;;) {
    const auto record = (*stream)->next();
    if (!record.ok() || !record->has_value()) return timeline;
    const log::Record& r = **record;
    if (const auto* anchor = std::get_if<log::Anchor>(&r.body)) clock.set(*anchor);
    const auto lane = lane_of(r.body);
    if (!lane) continue;
    const uint64_t ns = clock.at(r.at.branches);
    timeline.end_ns = std::max(timeline.end_ns, ns);
    if (timeline.events.size() >= kTimelineEventsMax) {
      ++timeline.left_out;
      continue;
    }
    const auto* digest = std::get_if<log::StateDigest>(&r.body);
    timeline.events.push_back({.lane = *lane,
                               .ns = ns,
                               .branches = r.at.branches,
                               .epoch = digest != nullptr ? digest->epoch : 0});
  }
}

std::string timeline_text(const std::vector<Timeline>& sides, const DivergeReport& report,
                          size_t width) {
  constexpr size_t kLabel = 14;
  const size_t columns = std::max<size_t>(width, kLabel + 20) - kLabel;
  uint64_t end = 1;
  for (const Timeline& side : sides) end = std::max(end, side.end_ns);
  const auto column = [&](uint64_t ns) {
    return std::min(columns - 1,
                    static_cast<size_t>(static_cast<double>(ns) / static_cast<double>(end) *
                                        static_cast<double>(columns)));
  };
  std::string text =
      fmt::format("{} columns are {:.3f} s of guest time; a digit counts, # is more\n", columns,
                  static_cast<double>(end) / 1e9);
  for (const Timeline& side : sides) {
    std::array<std::vector<uint64_t>, kTimelineLanes> lanes;
    lanes.fill(std::vector<uint64_t>(columns, 0));
    for (const TimelineEvent& e : side.events) ++lanes[static_cast<size_t>(e.lane)][column(e.ns)];
    text += side.name + "\n";
    for (size_t lane = 0; lane < kTimelineLanes; ++lane) {
      if (std::all_of(lanes[lane].begin(), lanes[lane].end(), [](uint64_t n) { return n == 0; }))
        continue;
      text += fmt::format("  {:<{}}", name_of(static_cast<TimelineLane>(lane)), kLabel - 2);
      for (const uint64_t n : lanes[lane]) text += density(n);
      text += '\n';
    }
    if (side.left_out != 0) text += fmt::format("  and {} more\n", side.left_out);
  }
  if (sides.empty()) return text;
  for (const Mark& mark : marks_of(report))
    text += fmt::format("{:>{}} {}\n", "^", kLabel + 1 + column(sides[0].ns_at(mark.branches)),
                        mark.name);
  return text;
}

nlohmann::json timeline_json(const std::vector<Timeline>& sides, const DivergeReport& report) {
  nlohmann::json events = nlohmann::json::array();
  for (size_t i = 0; i < sides.size(); ++i) {
    const auto pid = static_cast<unsigned>(i + 1);
    add_side(events, sides[i], pid);
    add_landings(events, sides[i], pid, i == 0 ? report.landings_a : report.landings_b);
  }
  if (!sides.empty())
    for (const Mark& mark : marks_of(report))
      events.push_back(
          {{"name", mark.name},
           {"ph", "i"},
           {"s", "g"},
           {"pid", 1},
           {"tid", 1},
           {"ts", microseconds(sides[0].ns_at(mark.branches))},
           {"args", {{"branches", mark.branches}, {"verdict", name_of(report.verdict)}}}});
  return {{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}};
}

}  // namespace us::replay
