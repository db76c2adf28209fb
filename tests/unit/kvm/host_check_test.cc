// Every row of hostcheck, provoked both ways through the seams, and what follows from it.
#include "hv/kvm/host_check.h"

#include <cerrno>
#include <doctest/doctest.h>
#include <functional>
#include <map>

#include "hv/kvm/model/kvm_model.h"
#include "hv/kvm/model/system_model.h"

namespace us::hv::kvm::test {
namespace {

struct Bench {
  model::SystemModel system;
  model::KvmModelOptions kvm = {.time_exits = true,
                                .monitor_steps = true,
                                .hides_spurious_faults = true,
                                .guest_only_trace = true};
  model::PerfOptions perf = {};
  model::TraceModelOptions trace = {};
  std::function<void(model::TraceModel&)> spoil_trace = [](model::TraceModel&) {};

  HostReport check() {
    model::PerfModel perf_model(perf);
    model::TraceModel trace_model(trace);
    spoil_trace(trace_model);
    model::KvmModel kvm_model(kvm, &perf_model, &trace_model);
    const HostReport report =
        check_host({system, kvm_model, perf_model, trace_model}, {.loop_branches = 2000});
    CHECK(trace_model.open_files() == 0);
    CHECK(trace_model.mappings() == 0);
    CHECK(kvm_model.open_files() == 0);
    CHECK(kvm_model.violations == std::vector<std::string>{});
    return report;
  }
};

const HostRow& row(const HostReport& report, const std::string& id) {
  for (const HostRow& r : report.rows)
    if (r.id == id) return r;
  FAIL("no row " << id);
  return report.rows.front();
}

TEST_CASE("a host prepared by the book passes every row and can do everything") {
  Bench bench;
  const HostReport report = bench.check();
  for (const HostRow& r : report.rows) {
    CAPTURE(r.id);
    CAPTURE(r.seen);
    CHECK(r.status == RowStatus::kPass);
    CHECK(!r.seen.empty());
    CHECK(!r.needed.empty());
    CHECK(r.mend.empty());
  }
  CHECK(report.rows.size() == 27);
  CHECK(report.modes.record_soft);
  CHECK(report.modes.record_kvm_steps);
  CHECK(report.modes.record_kvm_stock);
  CHECK(report.modes.record_kvm_patched);
  CHECK(report.modes.ipt);
  CHECK(report.blocking("record_kvm_patched").empty());
}

struct Provocation {
  const char* row;
  RowStatus status;
  const char* seen;  // part of what the row says
  std::function<void(Bench&)> spoil;
  bool stock_survives = false;
};

TEST_CASE("each thing that a host may lack fails its own row, named with what was seen") {
  const std::vector<Provocation> provocations = {
      {"kvm", RowStatus::kFail, "KVM-001", [](Bench& b) { b.kvm.open_error = ENOENT; }},
      {"kvm", RowStatus::kFail, "Permission denied", [](Bench& b) { b.kvm.open_error = EACCES; }},
      {"kvm", RowStatus::kFail, "KVM_CAP_X86_MSR_FILTER",
       [](Bench& b) { b.kvm.absent = {KVM_CAP_X86_MSR_FILTER}; }},
      {"kvm", RowStatus::kFail, "API version 11", [](Bench& b) { b.kvm.api_version = 11; }},
      {"kvm-run", RowStatus::kFail, "KVM_CREATE_VM",
       [](Bench& b) { b.kvm.create_vm_error = EBUSY; }},
      {"breakpoint", RowStatus::kFail, "does not go on",
       [](Bench& b) { b.kvm.resume_flag_works = false; }},
      {"guest-features", RowStatus::kFail, "CPUID.1H:ECX bit 19",
       [](Bench& b) { b.kvm.missing_features_ecx = 1u << 19; }},
      {"time-exits", RowStatus::kFail, "reads the host's counter",
       [](Bench& b) { b.kvm.time_exits = false; }, true},
      {"monitor-steps", RowStatus::kWarn, "trap flag",
       [](Bench& b) { b.kvm.monitor_steps = false; }, true},
      {"spurious-faults", RowStatus::kWarn, "another run",
       [](Bench& b) { b.kvm.hides_spurious_faults = false; }, true},
      {"bare-metal", RowStatus::kFail, "hypervisor underneath",
       [](Bench& b) { b.system.leaves[1][2] = 1u << 31; }},
      {"cores", RowStatus::kFail, "two kinds", [](Bench& b) { b.system.leaves[7][3] = 1u << 15; }},
      {"processor", RowStatus::kFail, "PMU-017",
       [](Bench& b) {
         b.system.processor = {"AuthenticAMD", 0x19, 1, 1, pmu::CoreType::kOnly};
       }},
      {"vmx", RowStatus::kFail, "ept N",
       [](Bench& b) { b.system.files["/sys/module/kvm_intel/parameters/ept"] = "N"; }},
      {"vmx", RowStatus::kFail, "entry controls", [](Bench& b) { b.system.msrs[0x484] = 0; }},
      {"vmx", RowStatus::kWarn, "cannot be read", [](Bench& b) { b.system.msrs.erase(0x483); },
       true},
      {"perfmon", RowStatus::kFail, "version 2",
       [](Bench& b) { b.system.leaves[0xa][0] = 0x0730'0802; }},
      {"tsx", RowStatus::kFail, "transactions", [](Bench& b) { b.system.leaves[7][1] = 1u << 11; }},
      {"smi", RowStatus::kFail, "freeze_on_smi 0",
       [](Bench& b) { b.system.files["/sys/devices/cpu/freeze_on_smi"] = "0"; }},
      {"smi", RowStatus::kWarn, "6.8.0", [](Bench& b) { b.system.release = "6.8.0-generic"; },
       true},
      {"perf-allowed", RowStatus::kFail, "Permission denied",
       [](Bench& b) { b.perf.open_error = EACCES; }},
      {"branch-counter", RowStatus::kFail, "PMU-018", [](Bench& b) { b.perf.counters_free = 2; }},
      {"nmi-watchdog", RowStatus::kWarn, "nmi_watchdog 1",
       [](Bench& b) { b.system.files["/proc/sys/kernel/nmi_watchdog"] = "1"; }, true},
      {"exact", RowStatus::kFail, "counted", [](Bench& b) { b.perf.overcount_one_in = 5; }},
      {"smt", RowStatus::kWarn, "smt/active 1",
       [](Bench& b) { b.system.files["/sys/devices/system/cpu/smt/active"] = "1"; }, true},
      {"isolated", RowStatus::kWarn, "isolated",
       [](Bench& b) { b.system.files["/sys/devices/system/cpu/isolated"] = ""; }, true},
      {"memory-stays", RowStatus::kWarn, "ksm/run 1",
       [](Bench& b) { b.system.files["/sys/kernel/mm/ksm/run"] = "1"; }, true},
      {"memory-stays", RowStatus::kWarn, "numa_balancing 1",
       [](Bench& b) { b.system.files["/proc/sys/kernel/numa_balancing"] = "1"; }, true},
      {"memory-pinned", RowStatus::kWarn, "memory", [](Bench& b) { b.kvm.pin_error = ENOMEM; },
       true},
      {"pt-guest-only", RowStatus::kWarn, "the host too",
       [](Bench& b) { b.kvm.guest_only_trace = false; }, true},
      {"pt", RowStatus::kFail, "no intel_pt", [](Bench& b) { b.trace.there = false; }, true},
      {"pt", RowStatus::kFail, "topa_multiple_entries",
       [](Bench& b) { b.trace.files["caps/topa_multiple_entries"] = "0"; }, true},
      {"pt", RowStatus::kFail, "psb_cyc", [](Bench& b) { b.trace.files["caps/psb_cyc"] = "0"; },
       true},
      {"pt-free", RowStatus::kFail, "busy", [](Bench& b) { b.trace.open_error = EBUSY; }, true},
      {"pt-free", RowStatus::kFail, "Permission denied",
       [](Bench& b) { b.trace.open_error = EACCES; }, true},
      {"pt-free", RowStatus::kFail, "IPT-005", [](Bench& b) { b.trace.aux_error = EPERM; }, true},
      {"pt-trace", RowStatus::kFail, "the processor's trace buffer overflowed",
       [](Bench& b) {
         b.spoil_trace = [](model::TraceModel& t) { t.at_next_enable = [&t] { t.overflow(); }; };
       },
       true},
      {"pt-trace", RowStatus::kFail, "the trace event had no hardware",
       [](Bench& b) {
         b.spoil_trace = [](model::TraceModel& t) {
           t.at_next_enable = [&t] { t.take_hardware(); };
         };
       },
       true},
      {"pt-guest", RowStatus::kFail, "IA32_VMX_MISC", [](Bench& b) { b.system.msrs[0x485] = 0; },
       true},
      {"pt-guest", RowStatus::kFail, "pt_mode 1",
       [](Bench& b) { b.system.files["/sys/module/kvm_intel/parameters/pt_mode"] = "1"; }, true},
  };
  for (const Provocation& p : provocations) {
    INFO("row ", std::string(p.row), ", to see: ", std::string(p.seen));
    Bench bench;
    p.spoil(bench);
    const HostReport report = bench.check();
    const HostRow& spoilt = row(report, p.row);
    CHECK(spoilt.status == p.status);
    CHECK_MESSAGE(spoilt.seen.find(p.seen) != std::string::npos, spoilt.seen);
    CHECK(report.modes.record_soft);
    CHECK(report.modes.record_kvm_stock == p.stock_survives);
    if (p.status != RowStatus::kFail) continue;
    CHECK_FALSE(spoilt.mend.empty());
    const bool trace = std::string(p.row).starts_with("pt");
    CHECK_FALSE((trace ? report.modes.ipt : report.modes.record_kvm_patched));
    const auto blocking = report.blocking(trace ? "ipt" : "record_kvm_patched");
    CHECK(std::any_of(blocking.begin(), blocking.end(),
                      [&](const HostRow* r) { return r->id == p.row; }));
  }
}

TEST_CASE("a host without counters can still record by steps, and says so") {
  Bench bench;
  bench.system.processor = {"AuthenticAMD", 0x1a, 2, 1, pmu::CoreType::kOnly};
  bench.perf.open_error = ENOENT;
  bench.kvm.time_exits = bench.kvm.monitor_steps = false;
  const HostReport report = bench.check();
  CHECK(report.modes.record_kvm_steps);
  CHECK_FALSE(report.modes.record_kvm_stock);
}

TEST_CASE("a quick look tries no guest and promises nothing that only a guest shows") {
  Bench bench;
  model::PerfModel perf(bench.perf);
  model::TraceModel trace(bench.trace);
  model::KvmModel kvm(bench.kvm, &perf, &trace);
  const HostReport report = check_host({bench.system, kvm, perf, trace}, {.quick = true});
  CHECK(kvm.runs == 0);
  CHECK(row(report, "exact").status == RowStatus::kWarn);
  CHECK(row(report, "pt-trace").status == RowStatus::kWarn);
  CHECK_FALSE(report.modes.record_kvm_steps);
}

}  // namespace
}  // namespace us::hv::kvm::test
