// What the vCPU does at its edges: refusals, failures of the host, kicks, capabilities.
#include <cerrno>
#include <doctest/doctest.h>
#include <thread>

#include "tests/unit/kvm/rig.h"

namespace us::hv::kvm::test {
namespace {

// JMP $; never a branch, never an exit.
constexpr uint8_t kForever[] = {0xeb, 0xfe};
// MOV ECX, 1000; DEC ECX; JNZ; HLT
constexpr uint8_t kCountdown[] = {0xb9, 0xe8, 0x03, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xf4};

template <size_t kSize>
void load(Rig& rig, const uint8_t (&code)[kSize]) {
  load_code(*rig.machine, code, code + kSize, 0);
}

Result<std::unique_ptr<Machine>> make(model::KvmModel& kvm, OutputSink& world,
                                      const KvmOptions& options) {
  return Machine::create({.memory_bytes = 2u << 20, .platform = {}}, world,
                         [&](GuestMemory& memory, Bus& bus) -> Result<std::unique_ptr<Vcpu>> {
                           return KvmVcpu::create(kvm, memory, bus, options);
                         });
}

KvmOptions counted() {
  KvmOptions options;
  options.counter = [](int) -> Result<std::unique_ptr<pmu::Counter>> {
    return UserError{.id = "PMU-018", .what = "no counter"};
  };
  return options;
}

TEST_CASE("a host that cannot do it is refused with the reason, and nothing is left open") {
  struct Case {
    const char* id;
    const char* seen;
    model::KvmModelOptions kvm;
  };
  for (const Case& c :
       {Case{"KVM-001", "No such file", {.open_error = ENOENT}},
        Case{"KVM-001", "Permission denied", {.open_error = EACCES}},
        Case{"KVM-002", "API version 13", {.api_version = 13}},
        Case{"KVM-002", "KVM_CAP_XSAVE", {.absent = {KVM_CAP_XSAVE}}},
        Case{"KVM-003", "busy", {.create_vm_error = EBUSY}}, Case{"KVM-004", "RDTSC", {}}}) {
    CAPTURE(c.id);
    model::KvmModel kvm(c.kvm);
    TextWorld world;
    const auto made = make(kvm, world, counted());
    REQUIRE(!made.ok());
    CHECK(made.error().id == c.id);
    CHECK_MESSAGE(made.error().seen.find(c.seen) != std::string::npos, made.error().seen);
    CHECK(made.error().exit_code == ExitCode::kHostCannot);
    CHECK(kvm.open_files() == 0);
  }
}

TEST_CASE("capabilities say what the tier is") {
  TextWorld world;
  model::KvmModel patched({.time_exits = true, .monitor_steps = true});
  const auto full = make(patched, world, counted());
  REQUIRE(full.ok());
  const VcpuCaps caps = (*full)->vcpu().caps();
  CHECK(std::string(caps.backend) == "kvm");
  CHECK(caps.traps_rdtsc);
  CHECK(caps.exact_step);
  CHECK_FALSE(caps.exact_alarm);
  CHECK_FALSE(caps.counts_instructions);

  model::KvmModel stock({});
  KvmOptions options = counted();
  options.cooperative = true;
  const auto cooperative = make(stock, world, options);
  REQUIRE(cooperative.ok());
  CHECK_FALSE((*cooperative)->vcpu().caps().traps_rdtsc);
  CHECK_FALSE((*cooperative)->vcpu().caps().exact_step);
}

TEST_CASE("a counter that cannot be opened fails the first run with its own error") {
  TextWorld world;
  model::KvmModel kvm({.time_exits = true});
  const auto made = make(kvm, world, counted());
  REQUIRE(made.ok());
  CHECK((*made)->run({}) == MachineStop::kFailed);
  REQUIRE((*made)->vcpu().failure());
  CHECK((*made)->vcpu().failure()->id == "PMU-018");
}

TEST_CASE("a counter lost to somebody else fails the run") {
  Rig rig({.kvm = {.time_exits = true}});
  load(rig, kCountdown);
  CHECK(rig.machine->run({.alarm = Branches(100)}) == MachineStop::kLimit);
  rig.perf.take_counters();
  CHECK(rig.machine->run({.alarm = Branches(200)}) == MachineStop::kFailed);
  CHECK(rig.machine->vcpu().failure()->id == "KVM-008");
}

TEST_CASE("an internal error of KVM is one error, and the vCPU stays failed") {
  Rig rig({.kvm = {.time_exits = true}});
  load(rig, kCountdown);
  rig.kvm.fail_next(50, KVM_INTERNAL_ERROR_EMULATION);
  CHECK(rig.machine->run({}) == MachineStop::kFailed);
  REQUIRE(rig.machine->vcpu().failure());
  CHECK(rig.machine->vcpu().failure()->id == "KVM-005");
  CHECK(rig.machine->run({}) == MachineStop::kFailed);
}

TEST_CASE("a place is met to the branch by a margin above the skid, and run past with a smaller") {
  RigOptions options{.kvm = {.time_exits = true}};
  options.perf.skid = *pmu::parse_skid("fixed:17");
  for (const uint64_t margin : {18u, 30u, 10u}) {
    CAPTURE(margin);
    Rig rig(options);
    load(rig, kCountdown);
    replay::Lander lander({.margin = margin});
    const replay::LandingResult result = lander.go_to(*rig.machine, Branches(300));
    const bool enough = margin > 17;
    CHECK(result.ok() == enough);
    CHECK(rig.machine->point().branches.value == (enough ? 300 : 300 - margin + 17));
    CHECK(lander.counters().overshoots == (enough ? 0 : 1));
    if (!enough) CHECK(result.end().error->id == "PMU-011");
  }
}

TEST_CASE("an alarm stops at its count where there is no skid, later by the skid where there is") {
  for (const char* text : {"none", "fixed:17"}) {
    CAPTURE(text);
    RigOptions options{.kvm = {.time_exits = true}};
    const auto skid = pmu::parse_skid(text);
    REQUIRE(skid.ok());
    options.perf.skid = *skid;
    Rig rig(options);
    load(rig, kCountdown);
    CHECK(rig.machine->run({.alarm = Branches(300)}) == MachineStop::kLimit);
    CHECK(rig.machine->point().branches.value == 300 + skid->max());
    CHECK(rig.machine->run({}) == MachineStop::kIdle);
    CHECK(rig.machine->point().branches == Branches(1000));
  }
}

TEST_CASE("a margin below the skid ends a landing in a reported overshoot") {
  RigOptions options{.kvm = {.time_exits = true}};
  const auto skid = pmu::parse_skid("fixed:500");
  REQUIRE(skid.ok());
  options.perf.skid = *skid;
  Rig rig(options);
  load(rig, kCountdown);
  replay::Lander lander({.margin = 40, .minimum_period = 32});
  const auto result = lander.land(*rig.machine, ExecutionPoint{Branches(300), 0x10'0007, 700, {}});
  CHECK(result.verdict == replay::LandingVerdict::kOvershoot);
  CHECK(result.reached.branches == Branches(760));
  CHECK(lander.counters().overshoots == 1);
}

TEST_CASE("a landing with margin enough stops at the very branch, before the breakpoint's rest") {
  RigOptions options{.kvm = {.time_exits = true}};
  const auto skid = pmu::parse_skid("fixed:30");
  REQUIRE(skid.ok());
  options.perf.skid = *skid;
  Rig rig(options);
  load(rig, kCountdown);
  replay::Lander lander({.margin = 64, .minimum_period = 32});
  const ExecutionPoint target{Branches(300), 0x10'0007, 699, {}};
  const auto result = lander.land(*rig.machine, target);
  CHECK(result.verdict == replay::LandingVerdict::kLanded);
  CHECK(rig.machine->point() == target);
  CHECK(lander.counters().skid_max == 30);
}

TEST_CASE("a kick stops a guest that never exits, and one before the run stops it at once") {
  Rig rig({.kvm = {.time_exits = true}});
  load(rig, kForever);
  rig.machine->kick();
  CHECK(rig.machine->run({}) == MachineStop::kKicked);
  CHECK(rig.kvm.runs <= 1);
  for (int i = 0; i < 20; ++i) {
    std::thread other([&rig] { rig.machine->kick(); });
    CHECK(rig.machine->run({}) == MachineStop::kKicked);
    other.join();
  }
  CHECK(rig.kvm.violations == std::vector<std::string>{});
}

TEST_CASE("a triple fault is a shutdown") {
  constexpr uint8_t kBroken[] = {0x0f, 0x0b};  // UD2, without an IDT
  for (const bool counter : {true, false}) {
    Rig rig({.kvm = {.time_exits = true}, .counter = counter});
    load(rig, kBroken);
    CHECK(rig.machine->run({}) == MachineStop::kShutdown);
    CHECK(rig.machine->run({}) == MachineStop::kShutdown);
  }
}

TEST_CASE("what the guest writes is marked for digests, page by page") {
  // MOV BYTE [0x180000], 1; HLT
  constexpr uint8_t kStore[] = {0xc6, 0x04, 0x25, 0, 0, 0x18, 0, 1, 0xf4};
  Rig rig({.kvm = {.time_exits = true}});
  load(rig, kStore);
  const Digest before = rig.machine->memory_digest();
  CHECK(rig.machine->memory_digest().hex() == before.hex());
  CHECK(rig.machine->run({}) == MachineStop::kIdle);
  CHECK(rig.machine->memory_digest().hex() != before.hex());
}

}  // namespace
}  // namespace us::hv::kvm::test
