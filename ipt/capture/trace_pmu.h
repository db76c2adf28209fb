// The kernel's intel_pt: what it is, and how an event of it is asked for. Sources: Linux
// Documentation/admin-guide/perf/ and arch/x86/events/intel/pt.c; the bits of `config` are those of
// IA32_RTIT_CTL (SDM 3C 35.2.8.2).
#pragma once

#include <cstdint>
#include <linux/perf_event.h>

#include "base/result.h"
#include "ipt/capture/trace_host.h"

namespace us::ipt {

struct TracePmu {
  uint32_t type = 0;              // perf_event_attr::type
  uint64_t config = 0;            // kWitnessConfig, and the PSB period
  uint64_t psb_period = 0;        // bytes between PSBs
  bool linear_addresses = false;  // caps/payloads_lip, CPUID.14H:ECX[31]
};

// Error IPT-003: this host has no Intel PT that could be used, with the reason.
Result<TracePmu> find_trace_pmu(TraceHost& host);

enum class TraceScope : uint8_t {
  kEverything,  // the thread and its guest; the host's part is dropped here (GuestFilter)
  // The guest alone, by kvm modules with US_KVM_CAP_X86_PT_GUEST_ONLY. On others such an event
  // traces nothing.
  kGuestOnly,
};

// An event of the branches, with returns and without timing, made disabled.
perf_event_attr make_trace_attr(const TracePmu& pmu, TraceScope scope, uint32_t aux_watermark);

}  // namespace us::ipt
