#include "pmu/events.h"

#include <doctest/doctest.h>
#include <set>

namespace us::pmu {

TEST_CASE(
    "every processor of the table gets its code, skid and SMI rule; unknown ones get nothing") {
  struct Case {
    CpuId cpu;
    uint64_t config;
    uint32_t skid;
  };
  const auto intel = [](uint32_t model, uint32_t stepping = 0, CoreType core = CoreType::kOnly) {
    return CpuId{"GenuineIntel", 6, model, stepping, core};
  };
  const auto amd = [](uint32_t family, uint32_t model) {
    return CpuId{"AuthenticAMD", family, model, 0, CoreType::kOnly};
  };
  const Case cases[] = {
      {intel(0x3f), 0x01c4, 100},
      {intel(0x4f), 0x01c4, 100},
      {intel(0x55, 4), 0x01c4, 100},
      {intel(0x55, 7), 0x01c4, 100},
      {intel(0x6a), 0x11c4, 100},
      {intel(0x8f), 0x11c4, 125},
      {intel(0xcf), 0x11c4, 125},
      {intel(0xad), 0x11c4, 125},
      {intel(0x97, 2, CoreType::kPerformance), 0x11c4, 125},
      {intel(0xb7, 1, CoreType::kEfficient), 0x7ec4, 100},
      {intel(0xc6, 2, CoreType::kPerformance), 0x100000011c4, 125},
      {amd(0x17, 0x01), 0xd1, 10000},
      {amd(0x17, 0x31), 0xd1, 10000},
      {amd(0x19, 0x01), 0xd1, 10000},
      {amd(0x19, 0x11), 0xd1, 10000},
      {amd(0x1a, 0x02), 0xd1, 10000},
  };
  for (const Case& c : cases) {
    INFO(c.cpu.vendor << " family " << c.cpu.family << " model " << c.cpu.model);
    const EventRow* row = find_event(c.cpu);
    REQUIRE(row != nullptr);
    CHECK(row->config == c.config);
    CHECK(row->skid == c.skid);
    CHECK(row->skid_bounded == (c.cpu.vendor == "GenuineIntel"));
  }
  CHECK(find_event(intel(0x55, 4))->name == "Skylake-X");
  CHECK(find_event(intel(0x55, 5))->name == "Cascade Lake");
  CHECK(find_event(intel(0x00)) == nullptr);
  CHECK(find_event({"SomethingElse", 6, 0x8f, 0, CoreType::kOnly}) == nullptr);
  CHECK(find_event(amd(0x16, 0)) == nullptr);
}

TEST_CASE("libpfm's code equals the table's wherever libpfm knows the processor") {
  std::set<std::string> known;
  for (const EventRow& row : all_events()) {
    INFO(std::string(row.name));
    const auto encoding = pfm_encode(row, true);
    if (!encoding) continue;
    known.insert(std::string(row.name));
    CHECK(encoding->config == row.config);
  }
  // What Debian's libpfm 4.13 has, at least; a newer one has more.
  for (const char* name : {"Haswell", "Broadwell", "Skylake-X", "Cascade Lake", "Ice Lake-X",
                           "Sapphire Rapids", "Emerald Rapids", "Zen", "Zen 2", "Zen 3", "Zen 4"}) {
    INFO(name);
    CHECK(known.count(name) == 1);
  }
}

// Measured once with libpfm itself, PMU by PMU, apart from the table in events.cc: the code that
// counts taken and not-taken branches, and the same code's older meaning. rr's table and the
// kernel's event files agree.
TEST_CASE("libpfm encodes all conditional branches of each PMU as the research table says") {
  struct Case {
    const char* pmu;
    const char* event;
    uint64_t config;
    bool in_debian;  // 4.13.0
  };
  const char* const intel = "BR_INST_RETIRED:COND";
  const char* const amd = "RETIRED_CONDITIONAL_BRANCH_INSTRUCTIONS";
  const Case cases[] = {
      {"hsw", intel, 0x01c4, true},
      {"hsw_ep", intel, 0x01c4, true},
      {"bdw", intel, 0x01c4, true},
      {"bdw_ep", intel, 0x01c4, true},
      {"skx", intel, 0x01c4, true},
      {"clx", intel, 0x01c4, true},
      {"icx", intel, 0x11c4, true},
      {"spr", intel, 0x11c4, true},
      {"emr", intel, 0x11c4, false},
      {"gnr", intel, 0x11c4, false},
      {"adl_glc", intel, 0x11c4, false},
      {"adl_grt", intel, 0x7ec4, false},
      {"amd64_fam17h_zen1", amd, 0xd1, true},
      {"amd64_fam17h_zen2", amd, 0xd1, true},
      {"amd64_fam19h_zen3", amd, 0xd1, true},
      {"amd64_fam19h_zen4", amd, 0xd1, true},
      {"amd64_fam1ah_zen5", amd, 0xd1, false},
  };
  for (const Case& c : cases) {
    INFO(std::string(c.pmu));
    EventRow row = all_events()[0];
    row.pfm_pmus = c.pmu;
    row.pfm_event = c.event;
    const auto encoding = pfm_encode(row, true);
    if (encoding) {
      CHECK(encoding->config == c.config);
    } else {
      CHECK_FALSE(c.in_debian);
    }
  }
}

TEST_CASE("Emerald Rapids is encoded by Sapphire Rapids' events where libpfm has none of its own") {
  const EventRow* emerald = find_event({"GenuineIntel", 6, 0xcf, 2, CoreType::kOnly});
  REQUIRE(emerald != nullptr);
  const auto encoding = pfm_encode(*emerald, true);
  REQUIRE(encoding.has_value());
  CHECK(encoding->config == 0x11c4);
  const bool own = encoding->canonical.rfind("emr::", 0) == 0;
  const bool fallback = encoding->canonical.rfind("spr::", 0) == 0;
  CHECK((own || fallback));
}

TEST_CASE("events are made guest-only and pinned, with a period only for the alarm") {
  for (const EventRow& row : all_events()) {
    const auto clock = make_event(row, EventRole::kClock);
    const auto alarm = make_event(row, EventRole::kAlarm);
    REQUIRE(clock.ok());
    REQUIRE(alarm.ok());
    for (const perf_event_attr& attr : {*clock, *alarm}) {
      CHECK(counts_guest_only(attr));
      CHECK(attr.pinned == 1);
      CHECK(attr.type == PERF_TYPE_RAW);
      CHECK(attr.config == row.config);
      CHECK(attr.precise_ip == 0);
    }
    CHECK(clock->sample_period == 0);
    CHECK(alarm->sample_period > uint64_t{1} << 50);
  }
  perf_event_attr host{};
  CHECK_FALSE(counts_guest_only(host));
}

TEST_CASE("this processor's identity has a vendor of twelve letters and a family") {
  const CpuId cpu = this_cpu();
  CHECK(cpu.vendor.size() == 12);
  CHECK(cpu.family >= 6);
}

}  // namespace us::pmu
