// The rows of hostcheck about Intel PT: there, free, going on in guests, and whole.
#include <fmt/format.h>

#include "hv/kvm/host_rows.h"
#include "hv/kvm/self_test.h"
#include "ipt/capture/aux_event.h"

namespace us::hv::kvm {
namespace {

constexpr uint32_t kVmxMisc = 0x485;  // IA32_VMX_MISC, SDM 3D A.6
constexpr unsigned kPtInVmx = 14;

HostRow failed_row(std::string id, const UserError& e) {
  return {.id = std::move(id),
          .status = RowStatus::kFail,
          .seen = fmt::format("{} [{}]: {}", e.what, e.id, e.seen),
          .needed = e.needed,
          .mend = e.mend};
}

// Opened with its buffers, as a VM's is, and shut again.
void check_free(const Host& host, const ipt::TracePmu& pmu, Rows& rows) {
  const auto event = ipt::AuxEvent::open(host.trace, pmu, {});
  if (!event.ok()) return rows.add(failed_row("pt-free", event.error()));
  rows.pass("pt-free", "opened, with its buffers mapped",
            "nobody else who traces, the right to, and memory for it");
}

void check_guests(const Host& host, Rows& rows) {
  const std::string needed = "PT that goes on in guests: IA32_VMX_MISC bit 14, pt_mode 0";
  const auto mode = host.system.read_file("/sys/module/kvm_intel/parameters/pt_mode");
  const auto misc = host.system.read_msr(kVmxMisc);
  if (mode && *mode != "0") {
    rows.fail("pt-guest", fmt::format("pt_mode {}", *mode), needed,
              "load kvm_intel with pt_mode=0");
  } else if (!misc) {
    rows.skipped("pt-guest", "the MSR cannot be read", needed);
  } else {
    rows.judge("pt-guest", (*misc >> kPtInVmx & 1) != 0, fmt::format("IA32_VMX_MISC {:#x}", *misc),
               needed, "a newer processor");
  }
}

// A guest whose branches are known is traced, and its branches are counted in the trace.
void check_whole(const Host& host, Rows& rows, const HostCheckOptions& options) {
  const std::string needed = "a guest's trace with every branch in it, and no loss";
  if (options.quick || rows.failed("kvm") || rows.failed("pt-free"))
    return rows.skipped("pt-trace", options.quick ? "not tried" : "no trace to be had", needed);
  const auto result = trace_loop(host.kvm, host.trace, options.loop_branches);
  if (!result.ok()) return rows.add(failed_row("pt-trace", result.error()));
  const bool whole = result->loss.empty();
  rows.judge("pt-trace", whole && result->expected == result->traced,
             whole ? fmt::format("{} branches traced of {}", result->traced, result->expected)
                   : result->loss,
             needed, "end who else traces; replay without --ipt-check where this stays");
}

}  // namespace

void check_trace(const Host& host, Rows& rows, const HostCheckOptions& options) {
  const auto pmu = ipt::find_trace_pmu(host.trace);
  if (!pmu.ok()) {
    rows.add(failed_row("pt", pmu.error()));
    rows.skipped("pt-free", "no intel_pt", "nobody else who traces");
    rows.skipped("pt-guest", "no intel_pt", "PT that goes on in guests");
    rows.skipped("pt-trace", "no intel_pt", "a guest's trace with every branch in it");
    return;
  }
  rows.pass("pt", fmt::format("ToPA with many entries, a PSB every {} bytes", pmu->psb_period),
            "Intel PT with output to many regions and a choice of PSB periods");
  check_free(host, *pmu, rows);
  check_guests(host, rows);
  check_whole(host, rows, options);
}

}  // namespace us::hv::kvm
