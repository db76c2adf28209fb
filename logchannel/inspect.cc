#include "logchannel/inspect.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "logchannel/log_reader.h"
#include "logchannel/printable.h"

namespace us::log {
namespace {

using Json = nlohmann::ordered_json;

void count(const Record& record, uint64_t bytes, LogInfo& info) {
  const uint8_t type = type_of(record.body);
  TypeCount& of_type = info.by_type[type_name(type)];
  ++of_type.records;
  of_type.bytes += bytes;
  if (std::holds_alternative<Unknown>(record.body)) {
    ++info.skipped_records;
    return;
  }
  ++info.records;
  if (const auto* section = std::get_if<Section>(&record.body)) {
    info.sections[section->name] += section->data.size();
    return;
  }
  if (!info.first) info.first = record.at;
  info.last = record.at;
  if (const auto* anchor = std::get_if<Anchor>(&record.body)) {
    if (info.first_tsc == 0) info.first_tsc = anchor->tsc;
    info.last_tsc = anchor->tsc;
  }
  if (std::holds_alternative<StateDigest>(record.body)) ++info.epochs;
  if (const auto* end = std::get_if<End>(&record.body)) info.end_record = *end;
}

// Reads all of it, telling `visit` each record too.
Result<LogInfo> read_all(const std::filesystem::path& folder,
                         const std::function<void(const Record&)>& visit) {
  auto opened = LogReader::open(folder, {.keep_unknown = true});
  if (!opened) return opened.error();
  LogReader& reader = **opened;
  LogInfo info;
  info.path = folder.string();
  info.id = to_hex(reader.manifest().id);
  info.created_by = reader.manifest().created_by;
  info.created_unix_seconds = reader.manifest().created_unix_seconds;
  for (;;) {
    const LogPosition before = reader.position();
    auto record = reader.next();
    if (!record) {
      info.error = record.error();
      break;
    }
    if (!record->has_value()) break;
    count(**record, (reader.position() - before).value, info);
    visit(**record);
  }
  info.bytes = reader.bytes();
  info.record_bytes = reader.position().value;
  info.segments = reader.segments();
  info.frames = reader.frames();
  info.compressed_frames = reader.compressed_frames();
  info.complete = reader.end().complete;
  info.end = info.error ? "damaged" : reader.end().reason;
  return info;
}

Json point_json(const Position& at) {
  Json out;
  out["branches"] = at.branches;
  out["rip"] = fmt::format("{:#x}", at.rip);
  if (at.instructions != 0) out["instructions"] = at.instructions;
  return out;
}

Json error_json(const UserError& error) {
  return {{"id", error.id},
          {"what", error.what},
          {"seen", error.seen},
          {"needed", error.needed},
          {"mend", error.mend}};
}

Json info_object(const LogInfo& info) {
  Json out;
  out["schema"] = "understudy.log.info.v1";
  out["path"] = info.path;
  out["id"] = info.id;
  out["created_by"] = info.created_by;
  out["created_unix_seconds"] = info.created_unix_seconds;
  out["records"] = info.records;
  out["bytes"] = info.bytes;
  out["complete"] = info.complete;
  Json by_type = Json::object();
  Json bytes_by_type = Json::object();
  for (const auto& [name, counted] : info.by_type) {
    by_type[name] = counted.records;
    bytes_by_type[name] = counted.bytes;
  }
  out["by_type"] = std::move(by_type);
  out["bytes_by_type"] = std::move(bytes_by_type);
  out["final_digest"] = info.end_record ? Json(info.end_record->final_digest.hex()) : Json(nullptr);
  out["end"] = info.end;
  out["record_bytes"] = info.record_bytes;
  out["skipped_records"] = info.skipped_records;
  out["segments"] = info.segments;
  out["frames"] = info.frames;
  out["compressed_frames"] = info.compressed_frames;
  out["epochs"] = info.epochs;
  out["sections"] = info.sections;
  if (info.first) out["first"] = point_json(*info.first);
  if (info.last) out["last"] = point_json(*info.last);
  out["guest_ticks"] = info.last_tsc - info.first_tsc;
  if (info.error) out["error"] = error_json(*info.error);
  return out;
}

// Follows the sections as they come, one joiner each; data is only measured, not kept.
class SectionsCheck {
 public:
  void add(const Section& part) {
    Progress& progress = by_name_[part.name];
    if (part.offset == 0) progress = {0, part.total, false};  // begun, or sent anew
    if (part.offset != progress.have || part.total != progress.total) progress.broken = true;
    progress.have = part.offset + part.data.size();
  }
  uint64_t broken() const {
    return static_cast<uint64_t>(
        std::count_if(by_name_.begin(), by_name_.end(), [](const auto& entry) {
          return entry.second.broken || entry.second.have != entry.second.total;
        }));
  }

 private:
  struct Progress {
    uint64_t have = 0;
    uint64_t total = 0;
    bool broken = false;
  };
  std::map<std::string, Progress> by_name_;
};

std::optional<UserError> check_totals(const LogInfo& info) {
  if (!info.end_record || info.error) return std::nullopt;
  const uint64_t counted = info.records + info.skipped_records - 1;  // without the End record
  if (info.end_record->records == counted || info.end_record->records == 0) return std::nullopt;
  return UserError{"LOG-016",
                   ExitCode::kLogUnreadable,
                   fmt::format("the end record of {} does not match", info.path),
                   fmt::format("{} records", counted),
                   fmt::format("{} records, as the end record says", info.end_record->records),
                   "restore the recording from an intact copy"};
}

}  // namespace

Result<LogInfo> inspect(const std::filesystem::path& folder) {
  return read_all(folder, [](const Record&) {});
}

std::string info_json(const LogInfo& info) {
  return info_object(info).dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string info_text(const LogInfo& info) {
  std::string out = fmt::format("recording  {}\nid         {}\nmade by    {}\n", info.path, info.id,
                                printable(info.created_by));
  out += fmt::format("state      {} ({})\n", info.complete ? "complete" : "not complete", info.end);
  out += fmt::format("records    {} in {} frames ({} compressed), {} segments\n", info.records,
                     info.frames, info.compressed_frames, info.segments);
  out += fmt::format("bytes      {} on disk, {} of records\n", info.bytes, info.record_bytes);
  if (info.last) {
    out += fmt::format("reaches    {} branches, rip {:#x}, {:.3f} s of guest time\n",
                       info.last->branches, info.last->rip,
                       static_cast<double>(info.last_tsc - info.first_tsc) / 1e9);
  }
  if (info.end_record) out += fmt::format("digest     {}\n", info.end_record->final_digest.hex());
  for (const auto& [name, counted] : info.by_type) {
    out +=
        fmt::format("  {:<14} {:>10} records {:>12} bytes\n", name, counted.records, counted.bytes);
  }
  for (const auto& [name, bytes] : info.sections) {
    out += fmt::format("  section {:<20} {:>12} bytes\n", name, bytes);
  }
  if (info.error) out += info.error->text() + "\n";
  return out;
}

Status dump(const std::filesystem::path& folder, const DumpOptions& options,
            const std::function<bool(const std::string&)>& line) {
  auto opened = LogReader::open(folder, {.keep_unknown = true});
  if (!opened) return opened.error();
  LogReader& reader = **opened;
  uint64_t printed = 0;
  for (uint64_t ordinal = 0; printed < options.records_max; ++ordinal) {
    auto record = reader.next();
    if (!record) return record.error();
    if (!record->has_value()) break;
    const Record& got = **record;
    if (ordinal < options.from_record) continue;
    if (!options.type.empty() && type_name(type_of(got.body)) != options.type) continue;
    ++printed;
    const LogPosition position = reader.position();
    if (!line(options.json ? record_json(got, position) : record_text(got, position))) break;
  }
  return Done{};
}

Result<VerifyReport> verify(const std::filesystem::path& folder) {
  SectionsCheck sections;
  auto info = read_all(folder, [&sections](const Record& record) {
    if (const auto* section = std::get_if<Section>(&record.body)) sections.add(*section);
  });
  if (!info) return info.error();
  VerifyReport report;
  report.info = std::move(*info);
  report.sections_broken = sections.broken();
  if (auto error = check_totals(report.info)) report.info.error = *error;
  return report;
}

std::string verify_json(const VerifyReport& report) {
  Json out = info_object(report.info);
  out["schema"] = "understudy.log.verify.v1";
  out["sound"] = report.sound();
  out["sections_broken"] = report.sections_broken;
  return out.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string verify_text(const VerifyReport& report) {
  const LogInfo& info = report.info;
  std::string out =
      fmt::format("{}: {} records, {} frames, {} bytes: {}, {} ({})\n", info.path, info.records,
                  info.frames, info.bytes, report.sound() ? "sound" : "DAMAGED",
                  info.complete ? "complete" : "not complete", info.end);
  if (report.sections_broken != 0) {
    out += fmt::format("  {} sections lack parts\n", report.sections_broken);
  }
  if (info.error) out += info.error->text() + "\n";
  return out;
}

}  // namespace us::log
