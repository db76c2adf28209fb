// Recordings that differ: in their logs, in what they say of traces, by a broken machine or counter
// on the recording side.
#include <doctest/doctest.h>

#include "ipt/epoch_digest.h"
#include "replay-engine/diverge/walker.h"
#include "tests/unit/diverge/guest.h"

namespace us::replay::test {
namespace {

constexpr uint64_t kPlace = 43'210;  // branches

const Bytes& clean() {
  static const Bytes log = record();
  return log;
}
const Bytes& traced() {
  static const Bytes log = record({.traced = true});
  return log;
}

Fault fault(const std::string& text) {
  const auto parsed = parse_fault(text);
  REQUIRE(parsed.ok());
  return *parsed;
}

DivergeReport compared(const Bytes& a, const Bytes& b,
                       std::optional<pmu::HostProfile> profile = {}) {
  Side side_b = side_of(b, {}, "b");
  side_b.profile = std::move(profile);
  const auto report = compare_sides(side_of(a, {}, "a"), side_b, {});
  REQUIRE(report.ok());
  return *report;
}

// The first record of a kind past kPlace, and what is done with it.
template <class Body, class Edit>
Bytes with_one_changed(const Bytes& log, const Edit& edit, uint64_t* branches = nullptr) {
  return edited(log, [&](std::vector<log::Record>& records) {
    for (auto it = records.begin(); it != records.end(); ++it) {
      if (it->at.branches < kPlace || !std::holds_alternative<Body>(it->body)) continue;
      if (branches != nullptr) *branches = it->at.branches;
      edit(records, it);
      return;
    }
    FAIL("no such record");
  });
}
using At = std::vector<log::Record>::iterator;

TEST_CASE("a log record whose content changed is named, with its epoch and the branch it sways") {
  uint64_t at = 0;
  const Bytes b = with_one_changed<log::Console>(
      clean(), [](auto&, At it) { std::get<log::Console>(it->body).bytes = {'x'}; }, &at);
  const auto report = compared(clean(), b);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kInput);
  REQUIRE(report.input);
  CHECK(report.input->at_a.branches.value == at);
  CHECK(report.input->what.find("another content of the console") == 0);
  CHECK(report.first_differing.epoch == epoch_of(clean(), at));
  REQUIRE(report.log_a.marked);
  CHECK(report.log_a.lines[*report.log_a.marked].find("console") != std::string::npos);
  CHECK(report.log_a.lines.size() == 26);
  REQUIRE(report.fork);
  CHECK(report.fork->at.rip == address_of(key_branch));
  CHECK(report.fork->taken_a);
  CHECK(!report.fork->taken_b);
}

TEST_CASE("a log record that is missing is named, with its epoch") {
  uint64_t at = 0;
  const Bytes b = with_one_changed<log::Console>(
      clean(), [](auto& records, At it) { records.erase(it); }, &at);
  const auto report = compared(clean(), b);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kInput);
  REQUIRE(report.input);
  CHECK(report.input->what.find("a has console") == 0);
  CHECK(report.first_differing.epoch == epoch_of(clean(), at));
}

TEST_CASE("an input one instruction late is named as such, and the interrupt it brought forth") {
  // Where the timer fires with this anchor, being one instruction late moves its interrupt.
  uint64_t at = 0;
  const Bytes b = with_one_changed<log::Anchor>(
      clean(),
      [](auto&, At it) {
        auto walker = Walker::start(side_of(clean()));
        REQUIRE(walker.ok());
        while ((*walker)->run(Branches(it->at.branches)) == WalkStop::kEpoch)
          (*walker)->pass_epoch();
        // The walker applies the anchor before its step; the place after it is the same.
        REQUIRE((*walker)->machine().vcpu().step() == hv::StopReason::kStepped);
        const hv::ExecutionPoint late = (*walker)->machine().point();
        REQUIRE(late.branches.value == it->at.branches);
        it->at.rip = late.rip;
        it->at.instructions = late.instructions.value;
      },
      &at);
  const auto report = compared(clean(), b);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kInput);
  REQUIRE(report.input);
  CHECK(report.input->what == "the same anchor, in b 1 instruction later");
  CHECK(report.first_differing.epoch == epoch_of(clean(), at));
}

TEST_CASE("a log damaged on disk is a damaged log from its first bad epoch on, exit 4") {
  Bytes b = clean();
  b[b.size() / 2] ^= 0x10;
  const auto report = compared(clean(), b);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kDamaged);
  REQUIRE(report.error);
  CHECK(report.error->exit_code == ExitCode::kLogUnreadable);
  CHECK(report.first_differing.epoch > 1);
  CHECK(report.first_differing.epoch < 12);
  CHECK(report.last_agreeing.epoch + 1 == report.first_differing.epoch);
}

TEST_CASE("an overcounting counter is at fault, not the guest, and an exact count confirms it") {
  pmu::HostProfile profile{.event = "model", .margin = 64, .exact = true};
  profile.model = pmu::ModelSettings{.misbehaviour = {.overcount_one_in = 20}};
  const auto report = compared(clean(), clean(), profile);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kCounter);
  REQUIRE(report.error);
  CHECK(report.error->id == "PMU-016");
  CHECK(report.first_differing.epoch == report.last_agreeing.epoch + 1);
  CHECK(report.causes[0].cause.find("branch counter cannot be relied on") != std::string::npos);
  CHECK(!report.fork);
}

TEST_CASE("an overcounting counter does not hide a planted difference elsewhere") {
  Side b = side_of(clean(), {fault(fmt::format("flip@{}:0x500000:0", kPlace))}, "b");
  b.profile = pmu::HostProfile{.event = "model", .margin = 64, .exact = true};
  b.profile->model = pmu::ModelSettings{.misbehaviour = {.overcount_one_in = 20}};
  const auto report = compare_sides(side_of(clean(), {}, "a"), b, {});
  REQUIRE(report.ok());
  INFO(to_text(*report));
  CHECK(report->verdict == DivergeVerdict::kState);
  CHECK(report->first_differing.epoch == epoch_of(clean(), kPlace));
}

TEST_CASE("a lossy trace is unknown and no alarm: states agree") {
  const Bytes lossy = record({.traced = true, .trace_buffer = 1024});
  const auto report = compared(traced(), lossy);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kUnknown);
  CHECK(report.trace.unknown > 0);
  CHECK(report.trace.first_unknown == 1);
  CHECK(!report.trace.first_differing);
  CHECK(report.epochs_compared == 12);
  CHECK(!is_difference(report.verdict));
}

TEST_CASE("a lossy trace does not hide what states tell") {
  const Bytes b = record({.plan = {fault(fmt::format("register@{}:r13:40", kPlace))},
                          .traced = true,
                          .trace_buffer = 1024});
  const auto report = compared(traced(), b);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kState);
  CHECK(report.confidence == Confidence::kRecorded);
  CHECK(report.first_differing.epoch == epoch_of(clean(), kPlace));
  CHECK(report.repetition.same == 2);
}

TEST_CASE("traces that processors cut differently are equal") {
  const auto report = compared(record({.traced = true, .variation_seed = 1}),
                               record({.traced = true, .variation_seed = 2}));
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kEqual);
  CHECK(report.trace.compared == 12);
  CHECK(report.trace.unknown == 0);
}

TEST_CASE("a path that only the recorded trace shows is named by epoch and range of branches") {
  const auto round = kPlace / 41 + 20;
  const std::string place = fmt::format("{:#x}:3", kTable + 8 * (round & 0xff));
  std::vector<Fault> plan = {fault(fmt::format("flip@{}:{}", kPlace, place))};
  const auto truth = true_fork(side_of(clean()), side_of(clean(), plan), kPlace - 100);
  REQUIRE(truth);
  const uint64_t ordinal = truth->at.branches.value + 1;
  // All that was changed is put back before the epoch ends: states agree there.
  plan.push_back(fault(fmt::format("flip@{}:{}", ordinal + 10, place)));
  plan.push_back(fault(fmt::format("register@{}:r12:0", ordinal + 20)));
  const Bytes b = record({.plan = plan, .traced = true});
  const auto report = compared(traced(), b);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kControlFlow);
  CHECK(report.confidence == Confidence::kRecorded);
  CHECK(report.differs == "trace");
  CHECK(report.first_differing.epoch == epoch_of(clean(), ordinal));
  CHECK(report.trace.first_differing == epoch_of(clean(), ordinal));
  CHECK(report.trace.branch_first <= ordinal);
  CHECK(report.trace.branch_end > ordinal);
}

TEST_CASE("a trace whose branches are not the counter's is the counter's fault or the trace's") {
  const Bytes b = with_one_changed<log::PtDigest>(traced(), [](auto&, At it) {
    auto& blob = std::get<log::PtDigest>(it->body).blob;
    ByteReader in(blob);
    auto digest = ipt::decode_epoch_digest(in);
    REQUIRE(digest.ok());
    digest->bounds.end.branches += 3;
    ByteWriter out;
    digest->encode(out);
    blob = out.take();
  });
  const auto report = compared(traced(), b);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kCounter);
  CHECK(report.first_differing.epoch == epoch_of(clean(), kPlace));
}

TEST_CASE("a trace digest of garbage is unknown") {
  const Bytes b = with_one_changed<log::PtDigest>(
      traced(), [](auto&, At it) { std::get<log::PtDigest>(it->body).blob = Bytes(100, 0xff); });
  const auto report = compared(traced(), b);
  CHECK(report.verdict == DivergeVerdict::kUnknown);
  CHECK(report.trace.first_unknown == epoch_of(clean(), kPlace));
}

TEST_CASE("a recording of a broken machine parts from its execution where it broke") {
  const Bytes b = record({.plan = {fault(fmt::format("register@{}:r13:40", kPlace))}});
  const auto report = compare_with_itself(side_of(b, {}, "b"), {.repeat = 3});
  REQUIRE(report.ok());
  INFO(to_text(*report));
  CHECK(report->verdict == DivergeVerdict::kState);
  CHECK(report->confidence == Confidence::kRecorded);
  CHECK(report->differs.find("registers") != std::string::npos);
  CHECK(report->first_differing.epoch == epoch_of(clean(), kPlace));
  CHECK(report->last_agreeing.epoch + 1 == report->first_differing.epoch);
  CHECK(report->repetition.same == 3);
  CHECK(!report->fork);
  CHECK(!report->causes.empty());
}

TEST_CASE("a log cut short is compared as far as it goes and called so") {
  const Bytes b = edited(
      clean(), [](std::vector<log::Record>& records) { records.resize(records.size() * 2 / 3); });
  const auto report = compared(clean(), b);
  INFO(to_text(report));
  CHECK(report.verdict == DivergeVerdict::kEnded);
  REQUIRE(report.input);
  CHECK(report.input->what.find("b's log is over") == 0);
}

TEST_CASE("an input at a place no guest meets ends the walk, whatever it claims") {
  for (const uint64_t branches : {kPlace + 17, uint64_t{1} << 60}) {
    const Bytes b = edited(clean(), [&](std::vector<log::Record>& records) {
      for (size_t i = 0; i < records.size(); ++i) {
        if (records[i].at.branches < kPlace) continue;
        records.resize(i + 1);
        records[i].at = {.branches = branches, .rip = 0x1234, .instructions = branches * 3};
        return;
      }
    });
    const auto report = compare_with_itself(side_of(b, {}, "b"), {});
    REQUIRE(report.ok());
    INFO(to_text(*report));
    CHECK(is_difference(report->verdict));
    CHECK(report->last_agreeing.epoch == 4);
  }
}

}  // namespace
}  // namespace us::replay::test
