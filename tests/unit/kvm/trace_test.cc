// Intel PT of a KVM guest, the whole way: the modelled processor's packets, perf's buffers, the
// capture and the vCPU, up to the digests of the epochs; beside the software processor's own trace
// of the same guest.
#include <cerrno>
#include <doctest/doctest.h>

#include "replay-engine/witness.h"
#include "tests/unit/kvm/rig.h"

namespace us::hv::kvm::test {
namespace {

// Signals that mean nothing, at entries and anywhere in the guest.
model::KvmModelOptions stormy(bool guest_only) {
  return {.seed = 3,
          .interrupt_entry_one_in = 5,
          .interrupt_after_branches = 40,
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

// MOV ESP, 0x90000; MOV ECX, 3000; L: CALL F; DEC ECX; JNZ L; HLT
// F: TEST CL, 1; JZ +2; OUT 0x80, AL; RET
constexpr uint8_t kCalls[] = {0xbc, 0,    0,    0x09, 0,    0xb9, 0xb8, 0x0b, 0,    0,
                              0xe8, 0x05, 0,    0,    0,    0xff, 0xc9, 0x75, 0xf7, 0xf4,
                              0xf6, 0xc1, 0x01, 0x74, 0x02, 0xe6, 0x80, 0xc3};

// Runs a guest of calls, branches and ports to its end, cut at these counts of branches; before
// each cut `before` is told the number of the epoch that ends.
std::vector<ipt::EpochDigest> cut_at(Machine& machine, const std::vector<uint64_t>& places,
                                     const std::function<void(uint64_t)>& before = {}) {
  load_code(machine, kCalls, kCalls + sizeof kCalls, 0);
  const auto witness = witness_of(machine);
  std::vector<ipt::EpochDigest> digests;
  const auto cut = [&] {
    if (before) before(digests.size());
    digests.push_back(witness->cut(digests.size()));
  };
  for (const uint64_t place : places) {
    CHECK(machine.run({.alarm = Branches(place)}) == MachineStop::kLimit);
    cut();
  }
  CHECK(machine.run({}) == MachineStop::kIdle);
  cut();
  return digests;
}

// An alarm nearer than 32 branches comes late.
std::vector<uint64_t> some_places(pmu::Random& random) {
  std::vector<uint64_t> places;
  for (uint64_t at = 0; (at += 64 + random.next() % 900) < 6000;) places.push_back(at);
  return places;
}

std::vector<ipt::EpochDigest> software_digests(const std::vector<uint64_t>& places) {
  TextWorld world;
  auto machine = soft_machine(world);
  return cut_at(*machine, places);
}

TEST_CASE("cuts of a KVM guest's trace at any places have the software processor's digests") {
  pmu::Random random(17);
  for (uint64_t round = 0; round < 12; ++round) {
    const std::vector<uint64_t> places = some_places(random);
    const auto soft = software_digests(places);
    for (const bool guest_only : {true, false}) {
      CAPTURE(round);
      CAPTURE(guest_only);
      model::TraceModelOptions trace{.seed = random.next(),
                                     .forgets_last_ip = round % 3 == 1,
                                     .publish_one_in = round % 2 == 0 ? 5u : 0u};
      if (round >= 6) trace.variation = ipt::VariationConfig::all(round);
      RigOptions options = traced(guest_only, trace);
      options.vcpu.capture.copier = round % 4 == 3;
      Rig rig(options);
      check_equal(cut_at(*rig.machine, places), soft);
      CHECK(rig.kvm.violations == std::vector<std::string>{});
      CHECK(rig.trace.opened.size() == 1);
      CHECK((rig.trace.opened[0].exclude_kernel == (guest_only ? 1 : 0)));
      CHECK((rig.trace.opened[0].exclude_user == (guest_only ? 1 : 0)));
      CHECK((rig.trace.host_stretches == 0) == guest_only);
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
      {"the trace buffer was full", [](auto& t) { t.fill(100); }},
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
  const std::vector<uint64_t> places = {500, 1000, 2000, 3000, 4000, 5000};
  const auto soft = software_digests(places);
  for (const Mischief& m : mischief) {
    for (const bool guest_only : {true, false}) {
      const std::string name =
          m.reason + std::string(guest_only ? ", guest only" : ", host inside");
      INFO(name);
      Rig rig(traced(guest_only));
      // From the beginning of the epoch on.
      const auto kvm = cut_at(*rig.machine, places, [&](uint64_t epoch) {
        if (epoch + 1 == kSpoilt) rig.trace.at_next_enable = [&] { m.spoil(rig.trace); };
      });
      REQUIRE(kvm.size() == soft.size());
      for (size_t i = 0; i < soft.size(); ++i) {
        CAPTURE(i);
        const ipt::Comparison found = compare(kvm[i], soft[i]);
        if (i != kSpoilt) {
          CHECK_MESSAGE(found.verdict == ipt::Verdict::kEqual, found.text());
          continue;
        }
        CHECK_MESSAGE(found.verdict == ipt::Verdict::kUnknown, found.text());
        CHECK(found.unknown_because == std::string("first: ") + m.reason);
      }
    }
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
