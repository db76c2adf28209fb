#include "logchannel/record.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/check.h"
#include "base/overloaded.h"

namespace us::log {
namespace {

bool fits_width(uint64_t value, uint8_t width) {
  return width == 8 || (width == 4 && value <= 0xffffffff);
}

bool disk_done_in_bounds(const DiskDone& done) {
  if (done.outcome > DiskOutcome::kReRead || done.data.size() > kDiskDataBytesMax) return false;
  if (done.outcome != DiskOutcome::kData && !done.data.empty()) return false;
  if (done.outcome == DiskOutcome::kReRead) return done.length <= kDiskDataBytesMax;
  return done.offset == 0 && done.length == 0 && done.data_crc == 0;
}

bool section_in_bounds(const Section& section) {
  return valid_section_name(section.name) && section.data.size() <= kSectionBytesMax &&
         section.offset <= section.total && section.data.size() <= section.total - section.offset;
}

}  // namespace

uint8_t type_of(const Body& body) {
  if (const auto* unknown = std::get_if<Unknown>(&body)) return unknown->type;
  // The variant lists the types in the order of their ids.
  static_assert(std::is_same_v<std::variant_alternative_t<0, Body>, Anchor>);
  static_assert(std::is_same_v<std::variant_alternative_t<9, Body>, End>);
  return static_cast<uint8_t>(body.index() + 1);
}

std::string type_name(uint8_t type) {
  static constexpr const char* kNames[] = {"anchor",  "net-frame",    "disk-done", "console",
                                           "command", "state-digest", "pt-digest", "marker",
                                           "section", "end"};
  if (type >= 1 && type <= std::size(kNames)) return kNames[type - 1];
  return fmt::format("type-{}", type);
}

const char* name_of(DiskOutcome outcome) {
  switch (outcome) {
    case DiskOutcome::kFailed: return "failed";
    case DiskOutcome::kDone: return "done";
    case DiskOutcome::kData: return "data";
    case DiskOutcome::kReRead: return "re-read";
  }
  return "?";
}

const char* name_of(MarkerKind kind) {
  switch (kind) {
    case MarkerKind::kCheckpoint: return "checkpoint";
    case MarkerKind::kSnapshot: return "snapshot";
    case MarkerKind::kGoLive: return "go-live";
    case MarkerKind::kNote: return "note";
  }
  return "?";
}

const char* name_of(EndReason reason) {
  switch (reason) {
    case EndReason::kGuestPoweredOff: return "guest powered off";
    case EndReason::kStoppedByUser: return "stopped by user";
    case EndReason::kSizeLimit: return "size limit";
    case EndReason::kTimeLimit: return "time limit";
    case EndReason::kGuestFailed: return "guest failed";
    case EndReason::kDiskFull: return "disk full";
    case EndReason::kOther: return "other";
  }
  return "?";
}

bool valid_section_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
                  c == '.';
         });
}

bool within_bounds(const Record& record) {
  if (record.vcpu > kVcpuMax) return false;
  return std::visit(Overloaded{
                        [](const Anchor& a) { return a.tsc_ceiling >= a.tsc; },
                        [](const NetFrame& n) { return n.frame.size() <= kNetFrameBytesMax; },
                        [](const DiskDone& d) { return disk_done_in_bounds(d); },
                        [](const Console& c) { return c.bytes.size() <= kConsoleBytesMax; },
                        [](const Command&) { return true; },
                        [](const StateDigest& s) {
                          return fits_width(s.registers, s.width) &&
                                 fits_width(s.devices, s.width) &&
                                 fits_width(s.memory.value_or(0), s.width);
                        },
                        [](const PtDigest& p) { return p.blob.size() <= kPtDigestBytesMax; },
                        [](const Marker& m) {
                          return m.kind >= MarkerKind::kCheckpoint && m.kind <= MarkerKind::kNote &&
                                 m.text.size() <= kTextBytesMax;
                        },
                        [](const Section& s) { return section_in_bounds(s); },
                        [](const End& e) {
                          return e.reason >= EndReason::kGuestPoweredOff &&
                                 e.reason <= EndReason::kOther && e.text.size() <= kTextBytesMax;
                        },
                        [&record](const Unknown& u) {
                          return u.type > static_cast<uint8_t>(RecordType::kEnd) &&
                                 u.type <= kRecordTypeMax && u.body.size() <= kRecordBodyMax &&
                                 record.skippable && record.vcpu == 0 && record.at == Position{};
                        },
                    },
                    record.body);
}

std::vector<Section> split_section(std::string_view name, ByteSpan data, size_t part_bytes) {
  US_CHECK(valid_section_name(name), "section name '{}'", name);
  US_CHECK(part_bytes > 0 && part_bytes <= kSectionBytesMax, "parts of {} bytes", part_bytes);
  std::vector<Section> parts;
  size_t offset = 0;
  do {
    const ByteSpan piece = data.subspan(offset, std::min(part_bytes, data.size() - offset));
    parts.push_back({std::string(name), offset, data.size(), {piece.begin(), piece.end()}});
    offset += piece.size();
  } while (offset < data.size());
  return parts;
}

SectionJoiner::State SectionJoiner::add(const Section& part) {
  if (state_ != State::kPartial) return state_ = State::kBroken;
  if (!started_) total_ = part.total;
  started_ = true;
  const bool fits = part.total == total_ && total_ <= bytes_max_ && part.offset == data_.size() &&
                    part.data.size() <= total_ - part.offset;
  if (!fits) return state_ = State::kBroken;
  data_.insert(data_.end(), part.data.begin(), part.data.end());
  if (data_.size() == total_) state_ = State::kWhole;
  return state_;
}

}  // namespace us::log
