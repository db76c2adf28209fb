#include "pmu/perf_counter.h"

#include <cstring>
#include <doctest/doctest.h>

#include "tests/unit/pmu/perf_model.h"

namespace us::pmu {
namespace {

using test::PerfModel;

const EventRow& skylake() {
  const EventRow* row = find_event({"GenuineIntel", 6, 0x55, 4, CoreType::kOnly});
  REQUIRE(row != nullptr);
  return *row;
}

std::unique_ptr<PerfCounter> opened(PerfModel& perf) {
  auto made = PerfCounter::open(perf, skylake(), {.signal = 40});
  REQUIRE(made.ok());
  return std::move(made).value();
}

TEST_CASE("a branch counter is refused, with the reason, where the processor cannot drive one") {
  struct Case {
    CpuId cpu;
    const char* reason;  // null: usable
  };
  const Case cases[] = {
      {{"GenuineIntel", 6, 0x3f, 2, CoreType::kOnly}, nullptr},
      {{"GenuineIntel", 6, 0x55, 7, CoreType::kOnly}, nullptr},
      {{"GenuineIntel", 6, 0x6a, 6, CoreType::kOnly}, nullptr},
      {{"GenuineIntel", 6, 0x8f, 8, CoreType::kOnly}, nullptr},
      {{"GenuineIntel", 6, 0xcf, 2, CoreType::kOnly}, nullptr},
      {{"GenuineIntel", 6, 0xad, 1, CoreType::kOnly}, nullptr},
      {{"AuthenticAMD", 0x17, 0x01, 2, CoreType::kOnly}, "no known bound"},
      {{"AuthenticAMD", 0x19, 0x11, 1, CoreType::kOnly}, "no known bound"},
      {{"AuthenticAMD", 0x1a, 0x02, 1, CoreType::kOnly}, "no known bound"},
      {{"GenuineIntel", 6, 0xb7, 1, CoreType::kPerformance}, "two kinds"},
      {{"GenuineIntel", 6, 0xb7, 1, CoreType::kEfficient}, "two kinds"},
      {{"GenuineIntel", 6, 0x0f, 6, CoreType::kOnly}, "not in the table"},
      {{"AuthenticAMD", 0x16, 0x00, 1, CoreType::kOnly}, "not in the table"},
  };
  for (const Case& c : cases) {
    INFO(c.cpu.vendor << " family " << c.cpu.family << " model " << c.cpu.model);
    const auto row = usable_event(c.cpu);
    CHECK(row.ok() == (c.reason == nullptr));
    if (row.ok()) continue;
    CHECK(row.error().id == "PMU-017");
    CHECK(row.error().exit_code == ExitCode::kHostCannot);
    CHECK(row.error().seen.find(c.reason) != std::string::npos);
  }
}

TEST_CASE("clock and alarm are opened guest-only and pinned; only the alarm samples") {
  PerfModel perf;
  {
    const auto counter = opened(perf);
    REQUIRE(perf.opened.size() == 2);
    for (const perf_event_attr& attr : perf.opened) {
      CHECK(counts_guest_only(attr));
      CHECK(attr.pinned == 1);
      CHECK(attr.precise_ip == 0);
      CHECK(attr.config == 0x01c4);
    }
    CHECK(perf.opened[0].sample_period == 0);
    CHECK(perf.opened[1].sample_period != 0);
  }
  CHECK(perf.open_files() == 0);
  CHECK(perf.mapped_pages() == 0);
}

TEST_CASE("a refused event is PMU-018 and names what the kernel said and how to mend it") {
  struct Case {
    int error;
    const char* mend;
  };
  for (const Case& c : {Case{EACCES, "perf_event_paranoid"}, Case{ENOENT, "bare metal"},
                        Case{EBUSY, "NMI watchdog"}, Case{EMFILE, "ulimit"}}) {
    PerfModel perf;
    perf.open_error = c.error;
    const auto made = PerfCounter::open(perf, skylake(), {});
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().id == "PMU-018");
    CHECK(made.error().seen == std::strerror(c.error));
    CHECK(made.error().mend.find(c.mend) != std::string::npos);
    CHECK(perf.open_files() == 0);
  }
}

TEST_CASE("a pinned event that finds no counter free is refused when it is opened") {
  PerfModel perf;
  perf.counters_free = 0;
  const auto made = PerfCounter::open(perf, skylake(), {});
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().id == "PMU-018");
  CHECK(perf.open_files() == 0);
}

TEST_CASE("the clock reads what the guest retired, by RDPMC where that is allowed") {
  for (const bool fast : {true, false}) {
    PerfModel perf;
    perf.rdpmc_allowed = fast;
    const auto counter = opened(perf);
    uint64_t total = 0;
    for (const uint64_t n : {uint64_t{1}, uint64_t{999}, uint64_t{1} << 39, uint64_t{1} << 41}) {
      perf.run(n);
      total += n;
      const auto now = counter->read();
      REQUIRE(now.ok());
      CHECK(now->value == total);
    }
    CHECK((perf.rdpmcs > 0) == fast);
    CHECK((counter->slow_reads() == 0) == fast);
  }
}

TEST_CASE("a control page that changes during the read is read again, and in the end by read(2)") {
  PerfModel perf;
  const auto counter = opened(perf);
  perf.run(77);
  perf.torn_pages = 3;
  CHECK(counter->read()->value == 77);
  CHECK(counter->slow_reads() == 0);
  perf.torn_pages = 1000;
  CHECK(counter->read()->value == 77);
  CHECK(counter->slow_reads() == 1);
}

TEST_CASE("an alarm fires once, at or after its target, and its skid is kept") {
  PerfModel perf;
  const auto counter = opened(perf);
  perf.run(1000);
  REQUIRE(counter->arm(Branches(1000), Branches(2000)).ok());
  perf.run(999);
  CHECK(perf.signals == 0);
  perf.run(42);
  CHECK(perf.signals == 1);
  counter->on_interrupt();
  perf.run(100'000);
  CHECK(perf.signals == 1);
  const CounterHealth health = counter->health();
  CHECK(health.alarms_armed == 1);
  CHECK(health.alarms_fired == 1);
  CHECK(health.skid_max == 41);
}

TEST_CASE("an alarm taken back before it fired leaves the next one single, and a third too") {
  PerfModel perf;
  const auto counter = opened(perf);
  uint64_t now = 0;
  for (int i = 0; i < 5; ++i) {
    REQUIRE(counter->arm(Branches(now), Branches(now + 1000)).ok());
    perf.run(10);
    now += 10;
    counter->disarm();
  }
  for (int i = 1; i <= 3; ++i) {
    REQUIRE(counter->arm(Branches(now), Branches(now + 1000)).ok());
    // Past twice its period before anybody looks: one signal, since one overflow disables it.
    perf.run(2500);
    now += 2500;
    CHECK(perf.signals == i);
    counter->on_interrupt();
  }
  CHECK(counter->health().alarms_missed == 0);
}

TEST_CASE("re-arming disables, resets and sets the period before it enables") {
  PerfModel perf;
  const auto counter = opened(perf);
  perf.controls.clear();
  REQUIRE(counter->arm(Branches(0), Branches(500)).ok());
  REQUIRE(perf.controls.size() == 4);
  CHECK(perf.controls[0].second == PERF_EVENT_IOC_DISABLE);
  CHECK(perf.controls[1].second == PERF_EVENT_IOC_RESET);
  CHECK(perf.controls[2].second == PERF_EVENT_IOC_PERIOD);
  CHECK(perf.controls[3].second == PERF_EVENT_IOC_REFRESH);
  for (const auto& [fd, request] : perf.controls) CHECK(fd == 4);  // never the clock
}

TEST_CASE("the signal of an alarm taken back does not end the alarm after it") {
  PerfModel perf;
  const auto counter = opened(perf);
  REQUIRE(counter->arm(Branches(0), Branches(100)).ok());
  perf.run(150);  // fired; the signal is on its way
  REQUIRE(counter->arm(Branches(150), Branches(1150)).ok());
  CHECK(counter->health().alarms_missed == 1);
  counter->on_interrupt();
  CHECK(counter->health().alarms_fired == 0);
  perf.run(1000);
  CHECK(perf.signals == 2);
  counter->on_interrupt();
  CHECK(counter->health().alarms_fired == 1);
}

TEST_CASE("alarms behind the clock or nearer than the minimum period are refused") {
  PerfModel perf;
  const auto counter = opened(perf);
  perf.run(100);
  CHECK(counter->arm(Branches(100), Branches(100)).error() == CounterError::kPast);
  CHECK(counter->arm(Branches(100), Branches(131)).error() == CounterError::kTooClose);
  CHECK(counter->arm(Branches(100), Branches(132)).ok());
}

TEST_CASE("a throttled alarm is missed while the clock keeps counting") {
  PerfModel perf;
  const auto counter = opened(perf);
  REQUIRE(counter->arm(Branches(0), Branches(100)).ok());
  perf.throttled = true;
  perf.run(5000);
  CHECK(perf.signals == 0);
  counter->disarm();
  CHECK(counter->health().alarms_missed == 1);
  CHECK(counter->read()->value == 5000);
}

TEST_CASE("a clock that lost or shared its counter is lost for ever") {
  for (const bool shared : {false, true}) {
    PerfModel perf;
    const auto counter = opened(perf);
    perf.run(10);
    CHECK(counter->read()->value == 10);
    if (shared) {
      perf.multiplexed = true;
      perf.run(1);
    } else {
      perf.take_counters();
    }
    CHECK(counter->read().error() == CounterError::kLost);
    perf.multiplexed = false;
    perf.run(1);
    CHECK(counter->read().error() == CounterError::kLost);
    CHECK(counter->arm(Branches(11), Branches(1000)).error() == CounterError::kLost);
    CHECK(counter->health().lost);
  }
}

}  // namespace
}  // namespace us::pmu
