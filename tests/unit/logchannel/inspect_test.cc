#include "logchannel/inspect.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "samples.h"

namespace us::log {
namespace {

std::filesystem::path make(const TemporaryFolder& folder, const std::vector<Record>& records) {
  auto writer = LogWriter::create(folder / "rec");
  REQUIRE(writer.ok());
  for (const Record& record : records) (*writer)->append(record);
  REQUIRE((*writer)->close().ok());
  return folder / "rec";
}

}  // namespace

TEST_CASE("info of a complete recording counts records by type and gives the final digest") {
  TemporaryFolder folder;
  const std::vector<Record> records = sample_sequence();
  auto info = inspect(make(folder, records));
  REQUIRE(info.ok());
  const auto json = nlohmann::json::parse(info_json(*info));
  CHECK(json["schema"] == "understudy.log.info.v1");
  CHECK(json["records"] == records.size());
  CHECK(json["complete"] == true);
  CHECK(json["by_type"]["anchor"] == 2);
  CHECK(json["by_type"]["disk-done"] == 4);
  CHECK(json["final_digest"] == "00000000000000020000000000000001");
  uint64_t on_disk = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder / "rec")) {
    on_disk += file.file_size();
  }
  CHECK(json["bytes"] == on_disk);
  CHECK(info_text(*info).find("state      complete") != std::string::npos);
}

TEST_CASE("info of a recording without its end says not complete, null digest and why") {
  TemporaryFolder folder;
  auto info = inspect(make(folder, {at(1, Command{1, 0})}));
  REQUIRE(info.ok());
  const auto json = nlohmann::json::parse(info_json(*info));
  CHECK(json["complete"] == false);
  CHECK(json["final_digest"].is_null());
  CHECK(json["end"] == "no end record: the recording was cut off between frames");
}

TEST_CASE("dump gives one line a record in both forms, and the filter holds") {
  TemporaryFolder folder;
  const std::vector<Record> records = sample_sequence();
  const auto path = make(folder, records);
  for (const bool json : {false, true}) {
    std::vector<std::string> lines;
    const Status status = dump(path, {.json = json}, [&lines](const std::string& line) {
      lines.push_back(line);
      return true;
    });
    REQUIRE(status.ok());
    REQUIRE(lines.size() == records.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      CHECK(lines[i].find('\n') == std::string::npos);
      if (!json) continue;
      const auto parsed = nlohmann::json::parse(lines[i]);
      CHECK(parsed["type"] == type_name(type_of(records[i].body)));
      CHECK(parsed["at"]["branches"] == records[i].at.branches);
    }
  }
  size_t anchors = 0;
  CHECK(dump(path, {.type = "anchor"}, [&anchors](const std::string&) {
          return ++anchors > 0;
        }).ok());
  CHECK(anchors == 2);
}

TEST_CASE("a dumped console record shows control bytes escaped") {
  const std::string line =
      record_text(at(1, Console{0, {0x1b, '[', 'A', '\n', '"', 0xff}}), LogPosition(9));
  CHECK(line.find(R"("\x1b[A\n\"\xff")") != std::string::npos);
  CHECK(line.find('\x1b') == std::string::npos);
}

TEST_CASE("info of a manifest with hostile text prints it escaped, and as valid JSON") {
  TemporaryFolder folder;
  LogWriterOptions options;
  options.created_by = "\x1b[2J\xff";
  REQUIRE(LogWriter::create(folder / "rec", options).ok());
  auto info = inspect(folder / "rec");
  REQUIRE(info.ok());
  CHECK(info_text(*info).find('\x1b') == std::string::npos);
  CHECK(nlohmann::json::accept(info_json(*info)));
}

TEST_CASE("verify finds a sound recording sound and names what is wrong with others") {
  TemporaryFolder folder;
  std::vector<Record> records = sample_sequence();
  std::get<End>(records.back().body).records = records.size() - 1;
  auto sound = verify(make(folder, records));
  REQUIRE(sound.ok());
  CHECK(sound->sound());
  CHECK(verify_text(*sound).find("sound, complete") != std::string::npos);

  TemporaryFolder second;
  std::get<End>(records.back().body).records += 1;
  auto totals = verify(make(second, records));
  REQUIRE(totals.ok());
  CHECK_FALSE(totals->sound());
  CHECK(totals->info.error->id == "LOG-016");

  TemporaryFolder third;
  const std::vector<Section> parts = split_section("vm", pattern_bytes(1000), 300);
  auto sections = verify(make(third, {at(0, parts[0]), at(0, parts[2])}));
  REQUIRE(sections.ok());
  CHECK(sections->sections_broken == 1);

  Bytes segment = read_bytes(folder / "rec" / "000000.uslog");
  segment[segment.size() / 2] ^= 1;
  write_bytes(folder / "rec" / "000000.uslog", segment);
  auto damaged = verify(folder / "rec");
  REQUIRE(damaged.ok());
  CHECK_FALSE(damaged->sound());
  CHECK(damaged->info.error->id == "LOG-006");
  CHECK(nlohmann::json::parse(verify_json(*damaged))["error"]["id"] == "LOG-006");
}

}  // namespace us::log
