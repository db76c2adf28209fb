// The KVM backend on the kernel and processor at hand: a guest with paging, faults (some in
// handlers), rings, interrupts, ports, device memory, sleep and strings is recorded and replayed by
// steps, and by the branch counter where the host can do that; the software processor must agree.
// Exit code 77 where there is nothing to try. An argument: how many rounds the guest makes.
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>

#include "hv/kvm/host_check.h"
#include "hv/kvm/kvm_vcpu.h"
#include "pmu/perf_counter.h"
#include "tests/support/kvm_guest/trial.h"

namespace us::hv::kvm::test {
namespace {

constexpr int kSkipped = 77;
constexpr uint64_t kRounds = 40;
constexpr uint64_t kCheckBranches = 100'000;
// Steps take microseconds each, and seconds of guest time go by.
constexpr Pace kPace{.anchor_interval = std::chrono::milliseconds(5),
                     .epoch_length = std::chrono::milliseconds(50),
                     .time_limit = std::chrono::minutes(5),
                     .epochs_per_memory_check = 10,
                     .between_kicks = std::chrono::milliseconds(20)};

VcpuFactory factory(KvmHost& host, const KvmOptions& options) {
  return [&host, options](GuestMemory& memory, Bus& bus) -> Result<std::unique_ptr<Vcpu>> {
    return KvmVcpu::create(host, memory, bus, options);
  };
}

int run(uint64_t rounds) {
  const auto system = real_host_system();
  const auto kvm = real_kvm_host();
  const auto perf = pmu::real_perf_host();
  const auto trace = ipt::real_trace_host();
  const Host host{*system, *kvm, *perf, *trace};
  const HostReport report = check_host(host, {.loop_branches = kCheckBranches});
  if (!report.modes.record_kvm_steps) {
    fmt::print(stderr, "SKIPPED: no /dev/kvm that runs a guest here: {}\n",
               report.obstacles("record_kvm_steps"));
    return kSkipped;
  }
  TrialHost trial{.stepped = factory(*kvm, {}), .rounds = rounds, .pace = kPace};
  if (report.modes.record_kvm_patched) {
    KvmOptions counted;
    counted.counter = [&host](int signal) { return open_counter(host, signal); };
    trial.counted = factory(*kvm, counted);
    const auto row = pmu::usable_event(system->cpu());
    trial.margin = row.ok() ? (*row)->skid : 0;
  } else {
    fmt::print("not tried: by the branch counter: {}\n", report.obstacles("record_kvm_patched"));
  }
  const bool passed = try_guest(trial, [](const Trial& t) {
    fmt::print("{}: {} ({})\n", t.name, t.failure.empty() ? "ok" : "FAILED: " + t.failure,
               t.figures);
    std::fflush(stdout);
  });
  return passed ? 0 : 1;
}

}  // namespace
}  // namespace us::hv::kvm::test

int main(int argc, char** argv) {
  const uint64_t rounds =
      argc > 1 ? std::strtoull(argv[1], nullptr, 10) : us::hv::kvm::test::kRounds;
  return us::hv::kvm::test::run(rounds);
}
