// A guest of a few dozen instructions, run to see whether the backend works on the host at hand:
// whether it runs at all, and whether branches are counted exactly, while the guest is thrown out
// of its loops from elsewhere all the time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "hv/kvm/kvm_vcpu.h"

namespace us::hv::kvm {

enum class Loop : uint8_t {
  kTaken,     // every branch is taken, but the last
  kNotTaken,  // one in 65 is taken
  kMixed,     // taken and not by turns, with ports, faults and device memory among them
};
const char* name_of(Loop loop);

struct LoopResult {
  uint64_t expected = 0;  // conditional branches, by construction
  uint64_t counted = 0;
  uint64_t exits = 0;  // how often the guest was left
  bool exact() const { return expected == counted; }
};

// Runs one loop of about `branches` branches to its end, on the calling thread. With `storm` a
// second thread kicks the vCPU some ten thousand times a second. Errors: those of
// KvmVcpu::create, and whatever the vCPU failed with; KVM-010: the guest went elsewhere.
Result<LoopResult> run_loop(KvmHost& host, const KvmOptions& options, Loop loop, uint64_t branches,
                            bool storm);

// Runs a loop of about `branches` branches with its trace taken. Errors as above, and those of
// ipt::find_trace_pmu and AuxEvent::open.
struct TraceResult {
  uint64_t expected = 0;
  uint64_t traced = 0;
  std::string loss;  // why the trace is not whole; empty: it is
};
Result<TraceResult> trace_loop(KvmHost& host, ipt::TraceHost& trace, uint64_t branches);

// Whether a guest that is told to stop before an instruction by a hardware breakpoint does so, and
// then goes on past it: what landing relies on. No branch is counted. Errors as above.
struct BreakpointResult {
  bool stopped_before = false;  // at the instruction, which had not run
  bool went_on = false;         // with RF it ran, and the next round stopped again
};
Result<BreakpointResult> try_breakpoint(KvmHost& host);

}  // namespace us::hv::kvm
