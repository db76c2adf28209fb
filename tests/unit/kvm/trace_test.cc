// Intel PT of a KVM guest, the whole way: the modelled processor's packets, perf's buffers, the
// capture and the vCPU, up to the digests of the epochs; beside the software processor's own trace
// of the same guest.
#include <cerrno>
#include <doctest/doctest.h>

#include "logchannel/memory_log.h"
#include "replay-engine/live_source.h"
#include "replay-engine/log_source.h"
#include "replay-engine/recorder.h"
#include "replay-engine/run_loop.h"
#include "replay-engine/witness.h"
#include "tests/unit/kvm/rig.h"

extern "C" const uint8_t kvm_payload_begin[], kvm_payload_end[];

namespace us::hv::kvm::test {
namespace {

constexpr uint64_t kRounds = 100;

// Signals that mean nothing everywhere, exceptions caught halfway.
model::KvmModelOptions stormy(bool guest_only) {
  return {.seed = 3,
          .interrupt_entry_one_in = 5,
          .interrupt_after_branches = 100,
          .interrupt_delivery_one_in = 3,
          .time_exits = true,
          .guest_only_trace = guest_only};
}

RigOptions traced(bool guest_only, model::TraceModelOptions trace = {}) {
  RigOptions options{.kvm = stormy(guest_only)};
  options.trace = std::move(trace);
  options.vcpu.capture = {.aux = {.aux_bytes = 1 << 20, .ring_bytes = 16 << 10}, .copier = false};
  return options;
}

std::unique_ptr<replay::Witness> witness_of(Machine& machine) {
  auto started = replay::Witness::start(machine, {.check = true});
  REQUIRE(started.ok());
  return std::move(started).value();
}

// Keeps the epochs' digests; records, if it is to.
class Keeper final : public replay::InputObserver {
 public:
  Keeper(Machine& machine, replay::Recorder* recorder)
      : witness_(witness_of(machine)), recorder_(recorder) {}
  bool before_apply(Machine& m, const replay::StampedInput& input,
                    replay::EndOfInputs& why) override {
    return recorder_ == nullptr || recorder_->before_apply(m, input, why);
  }
  bool at_epoch(Machine& m, const replay::EpochCheck& check, replay::EndOfInputs& why) override {
    if (check.epoch == 0) return true;  // the log's end, which no epoch ends at
    if (before_cut) before_cut(check.epoch);
    digests.push_back(witness_->cut(check.epoch));
    return recorder_ == nullptr || recorder_->at_epoch(m, check, why);
  }
  std::vector<ipt::EpochDigest> digests;
  std::function<void(uint64_t epoch)> before_cut;

 private:
  std::unique_ptr<replay::Witness> witness_;
  replay::Recorder* recorder_;
};

struct Recording {
  Bytes log;
  std::vector<ipt::EpochDigest> digests;
};

// `before_cut` is asked for mischief at every epoch's end.
Recording record(Rig& rig, const std::function<void(uint64_t)>& before_cut = {}) {
  Machine& machine = *rig.machine;
  load_payload(machine, kvm_payload_begin, kvm_payload_end, kRounds);
  WorldEvents events([&machine] { machine.kick(); });
  log::MemorySink sink;
  replay::Recorder recorder(sink);
  Keeper keeper(machine, &recorder);
  keeper.before_cut = before_cut;
  replay::LiveSource source(machine, events,
                            {.anchor_interval = std::chrono::microseconds(100),
                             .time_limit = std::chrono::seconds(120),
                             .epoch_length = std::chrono::milliseconds(1),
                             .epochs_per_memory_check = 5});
  replay::Lander lander;
  const replay::EndOfInputs end = run_loop(machine, source, lander, &keeper);
  CHECK_MESSAGE(end.kind == replay::EndKind::kGuestPoweredOff, end.detail);
  recorder.finish(machine, end);
  REQUIRE(sink.flush().ok());
  CHECK(rig.kvm.violations == std::vector<std::string>{});
  return {sink.bytes(), std::move(keeper.digests)};
}

std::vector<ipt::EpochDigest> digests_of_replay(Machine& machine, const Bytes& log) {
  load_payload(machine, kvm_payload_begin, kvm_payload_end, kRounds);
  log::MemoryStream stream(log);
  auto opening = replay::read_opening(stream);
  REQUIRE(opening.ok());
  replay::LogSource source(stream, std::move(opening->first));
  replay::Lander lander({.margin = 64, .minimum_period = 32});
  Keeper keeper(machine, nullptr);
  const replay::EndOfInputs end = run_loop(machine, source, lander, &keeper);
  CHECK_MESSAGE(end.kind == replay::EndKind::kGuestPoweredOff, end.detail);
  return std::move(keeper.digests);
}

// The same guest on the software processor, traced by itself.
std::vector<ipt::EpochDigest> software_digests(const Bytes& log) {
  TextWorld world;
  auto machine = soft_machine(world);
  return digests_of_replay(*machine, log);
}

void check_equal(const std::vector<ipt::EpochDigest>& kvm,
                 const std::vector<ipt::EpochDigest>& soft) {
  REQUIRE(kvm.size() == soft.size());
  CHECK(kvm.size() > 2);
  for (size_t i = 0; i < kvm.size(); ++i) {
    const ipt::Comparison found = compare(kvm[i], soft[i]);
    CHECK_MESSAGE(found.verdict == ipt::Verdict::kEqual, "epoch ", i, ": ", found.text());
    CHECK(kvm[i].combined() == soft[i].combined());
    CHECK(kvm[i].counter_agrees());
  }
}

TEST_CASE("a guest-only trace of a KVM guest has the digests of the software processor's own") {
  for (const bool forgets : {false, true}) {
    CAPTURE(forgets);
    Rig rig(traced(true, {.forgets_last_ip = forgets}));
    const Recording recording = record(rig);
    check_equal(recording.digests, software_digests(recording.log));
    CHECK(rig.trace.opened.size() == 1);
    CHECK((rig.trace.opened[0].exclude_kernel == 1));
    CHECK((rig.trace.opened[0].exclude_user == 1));
    CHECK(rig.trace.host_stretches == 0);
  }
}

TEST_CASE("a trace with the host in it has them too: the host's part is dropped") {
  for (const uint64_t seed : {1, 2, 3}) {
    CAPTURE(seed);
    Rig rig(traced(false, {.seed = seed, .publish_one_in = 7}));
    const Recording recording = record(rig);
    check_equal(recording.digests, software_digests(recording.log));
    CHECK((rig.trace.opened[0].exclude_kernel == 0));
    CHECK(rig.trace.host_stretches > 100);
    CHECK(rig.trace.pauses > 10);
  }
}

TEST_CASE("with the copier's thread the digests are the same") {
  for (const bool guest_only : {true, false}) {
    CAPTURE(guest_only);
    RigOptions options = traced(guest_only);
    options.vcpu.capture.copier = true;
    options.vcpu.capture.aux.aux_bytes = 64 << 10;
    Rig rig(options);
    const Recording recording = record(rig);
    check_equal(recording.digests, software_digests(recording.log));
  }
}

TEST_CASE("whatever two processors do differently, the digests are the same") {
  for (const uint64_t seed : {5, 6}) {
    for (const bool guest_only : {true, false}) {
      CAPTURE(seed);
      CAPTURE(guest_only);
      Rig rig(traced(guest_only, {.seed = seed, .variation = ipt::VariationConfig::all(seed)}));
      const Recording recording = record(rig);
      check_equal(recording.digests, software_digests(recording.log));
    }
  }
}

// One epoch is spoilt; which others are unknown?
struct Mischief {
  const char* reason;
  std::function<void(model::TraceModel&)> spoil;
};

TEST_CASE("each loss makes the epoch it falls into unknown, with its reason, and no other") {
  const std::vector<Mischief> mischief = {
      {"the trace buffer was full", [](auto& t) { t.flag_next(PERF_AUX_FLAG_TRUNCATED); }},
      {"the trace buffer was full", [](auto& t) { t.fill(4); }},
      {"trace was overwritten", [](auto& t) { t.flag_next(PERF_AUX_FLAG_OVERWRITE); }},
      {"the trace has gaps", [](auto& t) { t.flag_next(PERF_AUX_FLAG_PARTIAL); }},
      {"somebody else used the trace hardware",
       [](auto& t) { t.flag_next(PERF_AUX_FLAG_COLLISION); }},
      {"perf's records make no sense", [](auto& t) { t.flag_next(1ull << 40); }},
      {"perf lost records", [](auto& t) { t.lose_records(3); }},
      {"perf throttled the trace event", [](auto& t) { t.throttle(); }},
      {"perf's records make no sense", [](auto& t) { t.garble_record(); }},
      {"perf's buffer position makes no sense", [](auto& t) { t.skip_head(); }},
      {"the trace event had no hardware", [](auto& t) { t.take_hardware(); }},
      {"the trace's packets make no sense", [](auto& t) { t.damage(); }},
      {"the processor's trace buffer overflowed", [](auto& t) { t.overflow(); }},
  };
  constexpr uint64_t kSpoilt = 3;
  for (const Mischief& m : mischief) {
    for (const bool guest_only : {true, false}) {
      const std::string name =
          m.reason + std::string(guest_only ? ", guest only" : ", host inside");
      INFO(name);
      Rig rig(traced(guest_only));
      // At the end of the epoch before, so that the epoch has it wherever it comes.
      const Recording recording = record(rig, [&](uint64_t epoch) {
        if (epoch != kSpoilt) return;
        rig.trace.at_next_enable = [&] { m.spoil(rig.trace); };
      });
      const auto soft = software_digests(recording.log);
      REQUIRE(recording.digests.size() == soft.size());
      REQUIRE(soft.size() > kSpoilt + 2);
      for (size_t i = 0; i < soft.size(); ++i) {
        CAPTURE(i);
        const ipt::Comparison found = compare(recording.digests[i], soft[i]);
        if (recording.digests[i].bounds.epoch != kSpoilt + 1) {
          CHECK_MESSAGE(found.verdict == ipt::Verdict::kEqual, found.text());
          continue;
        }
        CHECK_MESSAGE(found.verdict == ipt::Verdict::kUnknown, found.text());
        CHECK(found.unknown_because == std::string("first: ") + m.reason);
      }
    }
  }
}

TEST_CASE("a recording made on KVM replays on another KVM with equal paths") {
  for (const bool guest_only : {true, false}) {
    CAPTURE(guest_only);
    RigOptions options = traced(guest_only, {.seed = 1});
    options.kvm = {.seed = 8, .time_exits = true, .guest_only_trace = guest_only};
    Rig rig(options);
    const Recording recording = record(rig);
    options.kvm.seed = 9;
    options.trace = model::TraceModelOptions{
        .seed = 2, .publish_one_in = 5, .variation = ipt::VariationConfig::all(2)};
    Rig other(options);
    check_equal(recording.digests, digests_of_replay(*other.machine, recording.log));
  }
}

TEST_CASE(
    "tracing is offered where the host has Intel PT, and ends with all that was opened shut") {
  {
    Rig rig({.kvm = stormy(true)});
    CHECK_FALSE(rig.machine->vcpu().caps().traces_pt);
    const auto started = replay::Witness::start(*rig.machine, {.check = true});
    REQUIRE(!started.ok());
    CHECK(started.error().id == "IPT-001");
  }
  Rig rig(traced(true));
  CHECK(rig.machine->vcpu().caps().traces_pt);
  CHECK_FALSE(rig.machine->vcpu().tracing());
  {
    const auto witness = witness_of(*rig.machine);
    CHECK(rig.machine->vcpu().tracing());
    CHECK(rig.trace.open_files() == 1);
    CHECK(rig.trace.mappings() == 2);
  }
  CHECK_FALSE(rig.machine->vcpu().tracing());
  CHECK(rig.trace.open_files() == 0);
  CHECK(rig.trace.mappings() == 0);
}

TEST_CASE(
    "a trace that perf refuses is an error with the kernel's reason, and leaves nothing open") {
  struct Case {
    const char* id;
    const char* seen;
    model::TraceModelOptions trace;
  };
  for (const Case& c : {Case{"IPT-004", "busy", {.open_error = EBUSY}},
                        Case{"IPT-004", "Permission denied", {.open_error = EACCES}},
                        Case{"IPT-005", "not permitted", {.ring_error = EPERM}},
                        Case{"IPT-005", "memory", {.aux_error = ENOMEM}}}) {
    CAPTURE(c.id);
    Rig rig(traced(true, c.trace));
    const auto started = replay::Witness::start(*rig.machine, {.check = true});
    REQUIRE(!started.ok());
    CHECK(started.error().id == c.id);
    CHECK_MESSAGE(started.error().seen.find(c.seen) != std::string::npos, started.error().seen);
    CHECK(rig.trace.open_files() == 0);
    CHECK(rig.trace.mappings() == 0);
    CHECK_FALSE(rig.machine->vcpu().tracing());
  }
}

}  // namespace
}  // namespace us::hv::kvm::test
