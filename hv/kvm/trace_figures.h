// What the trace of a guest costs and looks like on this host: a cut between epochs, and two things
// that processors may do with branches and that the SDM leaves to them.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "hv/kvm/kvm_vcpu.h"

namespace us::hv::kvm {

struct TraceFigures {
  uint64_t cuts = 0;
  double cut_ns = 0;           // one cut, its bytes handed over
  uint64_t bytes = 0;          // that the hardware wrote
  uint64_t branches = 0;       // in what was kept of it
  uint64_t deferred_tips = 0;  // targets that came before the branches ahead of them [SDM 35.4.2.3]
  uint64_t long_tnts = 0;      // packets of up to 47 branches
  std::string loss;            // why the trace is not whole; empty: it is
};

// Traces a guest that takes one conditional and one indirect branch a turn, and cuts its trace
// `cuts` times. Errors: those of KvmVcpu::create, of the counter, and of tracing (IPT-003 on).
Result<TraceFigures> measure_trace(KvmHost& host, ipt::TraceHost& trace, const KvmOptions& options,
                                   uint64_t cuts);

}  // namespace us::hv::kvm
