// Whether the guest's branch counter stays exact when the guest is left again and again, one kind
// of exit at a time, and how late its alarm comes: what `hostcheck --exits` measures.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "hv/kvm/kvm_vcpu.h"

namespace us::hv::kvm {

enum class ExitKind : uint8_t {
  kSignals,      // kicked by another thread
  kAlarms,       // the counter's own interrupts
  kBreakpoints,  // hardware breakpoints, passed by RF
  kSteps,        // by the monitor trap flag or TF, as the backend steps here
  kAccesses,     // a port
};
std::span<const ExitKind> all_exit_kinds();
const char* name_of(ExitKind kind);

struct StormResult {
  ExitKind kind = ExitKind::kSignals;
  uint64_t exits = 0;
  uint64_t expected = 0;  // conditional branches, by where the guest's loop counter stands
  uint64_t counted = 0;
  double seconds = 0;
  uint64_t late_p99 = 0, late_max = 0;  // kAlarms: branches between alarm and stop
  bool exact() const { return expected == counted; }
};

// Leaves a loop of one branch a turn `exits` times (at most kExitsMax), on the calling thread.
// Errors: those of KvmVcpu::create, whatever the vCPU failed with, KVM-010 the guest went
// elsewhere.
constexpr uint64_t kExitsMax = 100'000'000;
Result<StormResult> run_storm(KvmHost& host, const KvmOptions& options, ExitKind kind,
                              uint64_t exits);

}  // namespace us::hv::kvm
