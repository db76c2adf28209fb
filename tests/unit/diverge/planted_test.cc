// Faults planted on one side, and what must be found: the epoch, the instruction, the branch.
#include <doctest/doctest.h>

#include "replay-engine/diverge/fault_plan.h"
#include "tests/unit/diverge/guest.h"

namespace us::replay::test {
namespace {

constexpr uint64_t kPlace = 43'210;  // branches; inside epoch 5

const Bytes& clean() {
  static const Bytes log = record();
  return log;
}

Fault fault(const std::string& text) {
  const auto parsed = parse_fault(text);
  REQUIRE(parsed.ok());
  return *parsed;
}

DivergeReport planted(const std::string& text) {
  const auto report =
      compare_sides(side_of(clean(), {}, "a"), side_of(clean(), {fault(text)}, "b"), {});
  REQUIRE(report.ok());
  INFO(to_text(*report));
  CHECK(is_difference(report->verdict));
  CHECK(report->confidence == Confidence::kReproduced);
  CHECK(report->repetition.runs == 2);
  CHECK(report->repetition.same == 2);
  CHECK(!report->causes.empty());
  CHECK(report->planted.size() == 1);
  // The strides find what stepping through everything finds.
  const auto fork = true_fork(side_of(clean()), side_of(clean(), {fault(text)}), kPlace - 100);
  REQUIRE(report->fork.has_value() == fork.has_value());
  if (fork) {
    CHECK(report->fork->at == fork->at);
    CHECK(report->fork->to_a == fork->to_a);
    CHECK(report->fork->to_b == fork->to_b);
    // And so does libipt, from both sides' traces.
    CHECK(report->fork->decoded_agrees == true);
  }
  return *report;
}

std::string at_place(const char* kind, const std::string& rest = "") {
  return fmt::format("{}@{}{}", kind, kPlace, rest.empty() ? "" : ":" + rest);
}

// The sides part where a takes the timer's interrupt and b does not.
void check_timer_taken_by_a(const DivergeReport& report) {
  REQUIRE(report.fork);
  CHECK(report.fork->kind == ForkKind::kEvent);
  CHECK(report.fork->taken_a);
  CHECK(!report.fork->taken_b);
  CHECK(report.fork->to_a == address_of(timer_handler));
  CHECK(report.first_differing.epoch == epoch_of(clean(), report.fork->at.branches.value));
}

TEST_CASE("two executions of one log are equal to their end") {
  const auto report = compare_sides(side_of(clean(), {}, "a"), side_of(clean(), {}, "b"), {});
  REQUIRE(report.ok());
  CHECK(report->verdict == DivergeVerdict::kEqual);
  CHECK(report->epochs_compared == 12);
  CHECK(!report->fork);
  CHECK(report->causes.empty());
}

TEST_CASE("a recording agrees with its own execution") {
  const auto report = compare_with_itself(side_of(clean(), {}, "a"), {});
  REQUIRE(report.ok());
  CHECK(report->verdict == DivergeVerdict::kEqual);
  CHECK(report->epochs_compared == 12);
}

TEST_CASE("a flipped bit of memory is found where it flips, and the branch that reads it named") {
  // The entry of a round soon after, at some 41 branches each: read within the same epoch.
  const auto machine_round = kPlace / 41 + 20;
  const auto report =
      planted(at_place("flip", fmt::format("{:#x}:3", kTable + 8 * (machine_round & 0xff))));
  CHECK(report.first_differing.epoch == epoch_of(clean(), kPlace));
  CHECK(report.last_agreeing.epoch == report.first_differing.epoch - 1);
  REQUIRE(report.effect);
  CHECK(report.effect->before.branches.value == kPlace);
  CHECK(report.effect->differs == "memory");
  REQUIRE(report.effect->state.pages.size() == 1);
  CHECK(report.effect->state.pages[0].address == kTable);
  CHECK(report.effect->state.pages[0].bytes == 1);
  REQUIRE(report.fork);
  CHECK(report.fork->kind == ForkKind::kConditional);
  CHECK(report.fork->at.rip == address_of(table_branch));
  CHECK(report.fork->taken_a);
  CHECK(!report.fork->taken_b);
  CHECK(report.fork->ordinal == report.fork->at.branches.value + 1);
  CHECK(report.verdict == DivergeVerdict::kControlFlow);
}

TEST_CASE("a flipped bit that nobody reads is a state difference with no branch to name") {
  const auto report = planted(at_place("flip", "0x500000:7"));
  CHECK(report.verdict == DivergeVerdict::kState);
  CHECK(report.first_differing.epoch == epoch_of(clean(), kPlace));
  REQUIRE(report.effect);
  CHECK(report.effect->before.branches.value == kPlace);
  CHECK(!report.fork);
}

TEST_CASE("a skipped interrupt is an event on one side, named with its handler") {
  const auto report = planted(at_place("skip-interrupt"));
  CHECK(report.verdict == DivergeVerdict::kControlFlow);
  check_timer_taken_by_a(report);
}

TEST_CASE("an interrupt one instruction late is an event at the instruction where it was due") {
  const auto report = planted(at_place("late-interrupt"));
  check_timer_taken_by_a(report);
  // b takes it right after that one instruction.
  REQUIRE(report.fork->after_b.size() > 1);
  CHECK(report.fork->after_b[0].event);
  CHECK(report.fork->after_b[0].point.instructions == report.fork->at.instructions + 1);
}

TEST_CASE("a changed RDTSC is found at that RDTSC, and the branch on it named") {
  const auto report = planted(at_place("rdtsc", "0x100000"));
  REQUIRE(report.effect);
  CHECK(report.effect->before.rip == address_of(tsc_read));
  CHECK(report.effect->code.text == "rdtsc");
  CHECK(report.effect->differs == "registers");
  REQUIRE(report.effect->state.registers.size() == 1);
  CHECK(report.effect->state.registers[0].name == "rax");
  CHECK((report.effect->state.registers[0].a ^ report.effect->state.registers[0].b) == 0x100000);
  REQUIRE(report.fork);
  CHECK(report.fork->kind == ForkKind::kConditional);
  CHECK(report.fork->at.rip == address_of(tsc_branch));
  CHECK(report.fork->taken_a != report.fork->taken_b);
  CHECK(report.first_differing.epoch == epoch_of(clean(), kPlace));
  CHECK(report.verdict == DivergeVerdict::kControlFlow);
  CHECK(report.causes[0].cause.find("time stamp counter") != std::string::npos);
}

TEST_CASE("a wrong CPUID bit is found at that CPUID, and the branch on it named") {
  const auto report = planted(at_place("cpuid", "1:rdx:25"));
  REQUIRE(report.effect);
  CHECK(report.effect->before.rip == address_of(cpuid_read));
  CHECK(report.effect->code.text == "cpuid");
  REQUIRE(report.fork);
  CHECK(report.fork->at.rip == address_of(cpuid_branch));
  CHECK(report.fork->taken_a);
  CHECK(!report.fork->taken_b);
  CHECK(report.first_differing.epoch == epoch_of(clean(), report.effect->before.branches.value));
}

TEST_CASE("a flipped register bit is found at its instruction") {
  const auto report = planted(fmt::format("register@{}+1:r13:40", kPlace));
  REQUIRE(report.effect);
  CHECK(report.effect->before.branches.value - kPlace <= 1);
  REQUIRE(report.effect->state.registers.size() == 1);
  CHECK(report.effect->state.registers[0].name == "r13");
  CHECK(report.verdict == DivergeVerdict::kState);
}

TEST_CASE("a path taken for a moment is found though states agree again at the epoch's end") {
  const auto round = kPlace / 41 + 20;
  const std::string entry = fmt::format("{:#x}:3", kTable + 8 * (round & 0xff));
  std::vector<Fault> plan = {fault(at_place("flip", entry))};
  const auto truth = true_fork(side_of(clean()), side_of(clean(), plan), kPlace - 100);
  REQUIRE(truth);
  plan.push_back(fault(fmt::format("flip@{}:{}", truth->at.branches.value + 10, entry)));
  plan.push_back(fault(fmt::format("register@{}:r12:0", truth->at.branches.value + 20)));
  const auto report = compare_sides(side_of(clean(), {}, "a"), side_of(clean(), plan, "b"), {});
  REQUIRE(report.ok());
  INFO(to_text(*report));
  CHECK(report->differs == "trace");
  CHECK(report->verdict == DivergeVerdict::kControlFlow);
  CHECK(report->repetition.same == 2);
  REQUIRE(report->fork);
  CHECK(report->fork->at == truth->at);
  CHECK(report->fork->at.rip == address_of(table_branch));
}

TEST_CASE("a flip in the first epoch is found from the start") {
  const auto plan = std::vector{fault("flip@77:0x500000:1")};
  const auto report =
      compare_sides(side_of(clean(), {}, "a"), side_of(clean(), plan, "b"), {.repeat = 0});
  REQUIRE(report.ok());
  CHECK(report->last_agreeing.epoch == 0);
  CHECK(report->first_differing.epoch == 1);
  REQUIRE(report->effect);
  CHECK(report->effect->before.branches.value == 77);
  CHECK(report->repetition.runs == 0);
}

TEST_CASE("faults as text are read back as they were") {
  for (const char* text : {"flip@10:0x200000:3", "skip-interrupt@7+3", "late-interrupt@1",
                           "rdtsc@5:0x10", "cpuid@9+1:0x7:rbx:31", "register@1:r15:63"})
    CHECK(to_text(fault(text)) == text);
}

TEST_CASE("text that is no fault is DIV-003") {
  for (const char* text :
       {"", "flip", "flip@", "flip@1", "flip@1:2", "flip@1:2:8", "flip@1:2:3:4", "cpuid@1:0:rsp:1",
        "cpuid@1:0x100000000:rax:1", "rdtsc@1:0", "melt@1", "register@1:rip:3", "flip@-1:0:0",
        "flip@1+2+3:0:0", "flip@99999999999999999999:0:0"}) {
    const auto parsed = parse_fault(text);
    REQUIRE(!parsed.ok());
    CHECK(parsed.error().id == "DIV-003");
  }
}

}  // namespace
}  // namespace us::replay::test
