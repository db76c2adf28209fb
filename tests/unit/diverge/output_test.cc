// What is printed: the keys others read, timelines, names.
#include <cstdio>
#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

#include "replay-engine/diverge/timeline.h"
#include "tests/unit/diverge/guest.h"

namespace us::replay::test {
namespace {

DivergeReport a_difference(const Bytes& log) {
  const auto fault = parse_fault("register@43210:r13:40");
  REQUIRE(fault.ok());
  const auto report = compare_sides(side_of(log, {}, "a"), side_of(log, {*fault}, "b"), {});
  REQUIRE(report.ok());
  return *report;
}

TEST_CASE("a report as JSON has every key that is promised, with a difference and without") {
  const Bytes log = record();
  const auto same = compare_sides(side_of(log), side_of(log), {});
  REQUIRE(same.ok());
  for (const auto& json : {to_json(a_difference(log)), to_json(*same)})
    for (const char* key : {"schema", "verdict", "last_agreeing", "first_differing", "branch",
                            "registers", "causes", "log", "repeat", "counter", "environment"})
      CHECK(json.contains(key));
  const auto json = to_json(a_difference(log));
  CHECK(json["verdict"] == "state-differs");
  CHECK(json["registers"][0]["name"] == "r13");
  CHECK(json["registers"][0]["xor"] == "0x10000000000");
  CHECK(json["first_differing"]["epoch"] == 5);
  CHECK(to_json(*same)["first_differing"].is_null());
}

TEST_CASE("a timeline has a lane a kind of record, and the place marked where it is") {
  const Bytes log = record();
  auto timeline = read_timeline(side_of(log, {}, "a: rec"));
  REQUIRE(timeline.ok());
  CHECK(timeline->events.size() > 100);
  const auto report = a_difference(log);
  const std::string text = timeline_text({*timeline}, report, 80);
  CHECK(text.find("a: rec") != std::string::npos);
  for (const char* lane : {"anchors", "console", "epochs", "^ states part"})
    CHECK(text.find(lane) != std::string::npos);
  const auto json = timeline_json({*timeline}, report);
  size_t epochs = 0, marks = 0, landings = 0;
  for (const auto& event : json["traceEvents"]) {
    epochs += event["ph"] == "X";
    marks += event["name"] == "states part";
    landings += event["name"] == "landing";
  }
  CHECK(epochs == 12);
  CHECK(marks == 1);
  CHECK(landings > 0);
}

TEST_CASE(
    "an address between two symbols belongs to the lower one; a file without any is DIV-004") {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("us-symbols-{}", ::getpid())).string();
  std::ofstream(path) << "0000000000001000 T first\n0000000000001100 t second\n"
                         "0000000000001080 D data\nnonsense\n";
  const auto symbols = Symbols::load(path);
  REQUIRE(symbols.ok());
  CHECK(symbols->size() == 2);
  CHECK(symbols->at(0xfff).empty());
  CHECK(symbols->at(0x1000) == "first");
  CHECK(symbols->at(0x1084) == "first+0x84");
  CHECK(symbols->at(0x1101) == "second+0x1");
  CHECK(symbols->at(0x1000000).empty());
  std::ofstream(path) << "nothing here\n";
  CHECK(Symbols::load(path).error().id == "DIV-004");
  std::remove(path.c_str());
  CHECK(Symbols::load(path).error().id == "DIV-004");
}

TEST_CASE("a guest that carries no symbol tables has no names") {
  const Bytes log = record();
  NoOutputs outputs;
  const auto machine = side_of(log).make_machine(outputs);
  REQUIRE(machine.ok());
  CHECK(!Symbols::from_guest((*machine)->memory()));
}

}  // namespace
}  // namespace us::replay::test
