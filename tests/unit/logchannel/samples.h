// Sample records and folders that the tests of the log share.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "logchannel/log_reader.h"
#include "logchannel/log_writer.h"
#include "logchannel/record.h"

namespace us::log {

// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "us-log-XXXXXX").string();
    US_CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline Bytes read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes{std::istreambuf_iterator<char>(file), {}};
}

inline void write_bytes(const std::filesystem::path& path, ByteSpan bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

inline Bytes pattern_bytes(size_t size, uint32_t seed = 1) {
  Bytes bytes(size);
  for (uint8_t& byte : bytes) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<uint8_t>(seed >> 24);
  }
  return bytes;
}

inline Record at(uint64_t branches, Body body, uint64_t rip = 0xffffffff81a3c0de) {
  Record record;
  record.at.branches = branches;
  record.at.rip = rip;
  record.at.instructions = branches * 6;
  record.body = std::move(body);
  return record;
}

// One record of every type, by name: the golden files are made of these. Never change a sample,
// add.
inline std::vector<std::pair<std::string, Record>> samples() {
  std::vector<std::pair<std::string, Record>> all;
  const auto add = [&all](const char* name, Record record) {
    all.emplace_back(name, std::move(record));
  };
  add("anchor", at(1000, Anchor{1000, 4'000'000, 3ull << 32, 8'000'000}));
  add("anchor-own-branches", at(1000, Anchor{990, 4'000'123, 0x2f0000000, 4'000'123}));
  add("net-frame", at(2000, NetFrame{0, pattern_bytes(60)}));
  add("disk-done", at(3000, DiskDone{.device = 1, .request = 7}));
  add("disk-failed",
      at(3000, DiskDone{.device = 1, .request = 7, .outcome = DiskOutcome::kFailed}));
  add("disk-data",
      at(3000, DiskDone{.request = 3, .outcome = DiskOutcome::kData, .data = pattern_bytes(32)}));
  add("disk-re-read", at(3000, DiskDone{.request = 9,
                                        .outcome = DiskOutcome::kReRead,
                                        .offset = 1 << 20,
                                        .length = 4096,
                                        .data_crc = 0xfeedface}));
  add("console", at(4000, Console{1, {'l', 's', '\n'}}));
  add("command", at(5000, Command{2, 300}));
  add("state-digest",
      at(6000,
         StateDigest{.epoch = 1, .registers = 0x1122334455667788, .devices = 0x99aabbccddeeff00}));
  add("state-digest-narrow-memory", at(6000, StateDigest{.epoch = 41,
                                                         .width = 4,
                                                         .registers = 0x11223344,
                                                         .devices = 0,
                                                         .memory = 0x55667788}));
  add("pt-digest", at(6000, PtDigest{5, pattern_bytes(24)}));
  add("marker", at(7000, Marker{MarkerKind::kSnapshot, 3, "before-upgrade"}));
  add("section",
      at(0, Section{
                "vm", 0, 13, {'n', 'a', 'm', 'e', '=', '"', 'w', 'e', 'b', '1', '"', '\n', '\n'}}));
  add("end", at(9000, End{EndReason::kGuestPoweredOff,
                          {0x0123456789abcdef, 0xfedcba9876543210},
                          54000,
                          9000,
                          36'000'000,
                          12,
                          99,
                          "bye"}));
  Record other_vcpu = at(1000, Command{1, 0});
  other_vcpu.vcpu = 5;
  add("command-vcpu-5", other_vcpu);
  Record skippable = at(1000, Marker{MarkerKind::kNote, 1, "only a note"}, 0x401000);
  skippable.skippable = true;
  add("marker-skippable", skippable);
  Record in_rep = at(1000, Command{1, 0}, 0x401000);
  in_rep.at.rcx = 77;
  in_rep.at.tie = 0xabcd1234;
  in_rep.at.instructions = 0;
  add("command-rcx-tie", in_rep);
  return all;
}

// The same in one order that keeps positions rising.
inline std::vector<Record> sample_sequence() {
  std::vector<Record> records;
  for (auto& [name, record] : samples()) records.push_back(record);
  uint64_t branches = 100;
  for (Record& record : records) {
    record.at.branches = branches += 1000;
    if (record.at.instructions != 0) record.at.instructions = branches * 6;
    if (std::holds_alternative<Anchor>(record.body))
      std::get<Anchor>(record.body).branches = branches;
  }
  std::vector<Record> ordered;
  for (const Record& record : records) {
    if (!std::holds_alternative<End>(record.body)) ordered.push_back(record);
  }
  ordered.push_back(at(branches + 1, End{EndReason::kStoppedByUser, {1, 2}, 3, 4, 5, 6, 7, ""}));
  return ordered;
}

struct ReadBack {
  std::vector<Record> records;
  std::optional<UserError> error;
  StreamEnd end;
};

inline ReadBack read_back(const std::filesystem::path& folder, LogReaderOptions options = {}) {
  ReadBack out;
  auto reader = LogReader::open(folder, options);
  if (!reader) {
    out.error = reader.error();
    return out;
  }
  for (;;) {
    auto record = (*reader)->next();
    if (!record) {
      out.error = record.error();
      break;
    }
    if (!record->has_value()) break;
    out.records.push_back(std::move(**record));
  }
  out.end = (*reader)->end();
  return out;
}

// Whether `part` is how `whole` begins.
inline bool is_prefix(const std::vector<Record>& part, const std::vector<Record>& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

}  // namespace us::log
