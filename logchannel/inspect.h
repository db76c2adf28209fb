// Looking inside a recording: what `understudy log info|dump|verify` print.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/types.h"
#include "logchannel/record.h"

namespace us::log {

struct TypeCount {
  uint64_t records = 0;
  uint64_t bytes = 0;  // encoded, before compression
};

struct LogInfo {
  std::string path{};
  std::string id{};
  std::string created_by{};
  uint64_t created_unix_seconds = 0;
  uint64_t records = 0;          // of known types
  uint64_t skipped_records = 0;  // of unknown, skippable types
  uint64_t bytes = 0;            // of files: headers and whole frames; what the writer counted
  uint64_t record_bytes = 0;     // before compression and framing; equal to the last log position
  uint64_t segments = 0;
  uint64_t frames = 0;
  uint64_t compressed_frames = 0;
  std::map<std::string, TypeCount> by_type{};
  std::map<std::string, uint64_t> sections{};  // name -> bytes
  bool complete = false;                       // ended by its End record
  std::string end{};                           // how it ended
  std::optional<End> end_record{};
  std::optional<Position> first{}, last{};  // of records other than sections
  uint64_t first_tsc = 0, last_tsc = 0;     // of anchors
  uint64_t epochs = 0;                      // state digests
  std::optional<UserError> error{};         // where reading stopped, if it was damaged
};

// Reads a whole recording. Fails only where it cannot be opened; damage further on is in `error`,
// with the counts up to it.
Result<LogInfo> inspect(const std::filesystem::path& folder);

// {"schema": "understudy.log.info.v1", "records", "bytes", "complete", "by_type",
// "final_digest"...}
std::string info_json(const LogInfo& info);
std::string info_text(const LogInfo& info);

// One line, without its end. `position` is the log position after the record.
std::string record_text(const Record& record, LogPosition position);
std::string record_json(const Record& record, LogPosition position);

struct DumpOptions {
  bool json = false;
  uint64_t from_record = 0;  // ordinal of the first record to print
  uint64_t records_max = ~uint64_t{0};
  std::string type{};  // only this type_name(); empty: all
};
// Calls `line` for each record; stops early where it returns false. Damage is the error returned,
// after the lines before it.
Status dump(const std::filesystem::path& folder, const DumpOptions& options,
            const std::function<bool(const std::string&)>& line);

struct VerifyReport {
  LogInfo info{};
  uint64_t sections_broken = 0;  // sections whose parts do not join
  bool sound() const { return !info.error && sections_broken == 0; }
};
// Checks everything that can be checked without running the guest: headers, order, checksums, every
// record's bounds, sections that join, totals of the End record against what was counted.
Result<VerifyReport> verify(const std::filesystem::path& folder);
std::string verify_json(const VerifyReport& report);
std::string verify_text(const VerifyReport& report);

}  // namespace us::log
