#include "hv/kvm/host_check.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "hv/kvm/cpuid_table.h"
#include "hv/kvm/host_rows.h"
#include "hv/kvm/self_test.h"
#include "pmu/perf_counter.h"

namespace us::hv::kvm {
namespace {

constexpr uint64_t kStepBranches = 200;

KvmOptions with_counter(const Host& host) {
  KvmOptions options;
  options.counter = [host](int signal) { return open_counter(host, signal); };
  return options;
}

HostRow from_error(std::string id, const UserError& e) {
  return {.id = std::move(id),
          .status = RowStatus::kFail,
          .seen = fmt::format("{} [{}]: {}", e.what, e.id, e.seen),
          .needed = e.needed,
          .mend = e.mend};
}

void check_kvm_device(const Host& host, Rows& rows) {
  const Status kvm = check_kvm(host.kvm);
  if (!kvm.ok()) {
    rows.add(from_error("kvm", kvm.error()));
    return;
  }
  rows.pass("kvm", "/dev/kvm, with every capability needed", "/dev/kvm of Linux 5.10 or newer");
}

// A guest that steps, then one that runs into a breakpoint and on.
void check_running(const Host& host, Rows& rows, bool quick) {
  const std::string needed = "a guest of loops, ports and faults that comes to its end";
  if (quick || rows.failed("kvm")) {
    rows.skipped("kvm-run", quick ? "not tried" : "no /dev/kvm", needed);
    rows.skipped("breakpoint", quick ? "not tried" : "no /dev/kvm",
                 "hardware breakpoints that stop a guest, and let it go on");
    return;
  }
  const auto result = run_loop(host.kvm, KvmOptions{}, Loop::kMixed, kStepBranches, false);
  if (!result.ok()) {
    rows.add(from_error("kvm-run", result.error()));
  } else {
    rows.judge("kvm-run", result->exact(),
               fmt::format("{} branches stepped, {} expected", result->counted, result->expected),
               needed, "use the software processor; report this");
  }
  const auto breakpoint = try_breakpoint(host.kvm);
  if (!breakpoint.ok()) {
    rows.add(from_error("breakpoint", breakpoint.error()));
    return;
  }
  rows.judge("breakpoint", breakpoint->stopped_before && breakpoint->went_on,
             breakpoint->stopped_before
                 ? breakpoint->went_on ? "stops, and goes on" : "stops, and does not go on"
                 : "does not stop",
             "hardware breakpoints that stop a guest, and let it go on",
             "run on bare metal: KVM inside another hypervisor may lack them");
}

void check_guest_features(const Host& host, Rows& rows) {
  const std::string needed = "every feature that our guests are told of";
  const int device = host.kvm.open_device();
  if (device < 0) return rows.skipped("guest-features", "no /dev/kvm", needed);
  std::vector<kvm_cpuid_entry2> entries(256);
  const int count = host.kvm.supported_cpuid(device, entries);
  host.kvm.close(device);
  if (count < 0) return rows.fail("guest-features", std::strerror(-count), needed, "");
  entries.resize(static_cast<size_t>(count));
  const auto missing = missing_features(guest_cpuid(), entries);
  rows.judge("guest-features", missing.empty(),
             missing.empty() ? "all there" : fmt::format("missing: {}", fmt::join(missing, ", ")),
             needed, "a processor of the last ten years; switch features on in the firmware");
}

void check_counter(const Host& host, Rows& rows) {
  const auto row = pmu::usable_event(host.system.cpu());
  if (!row.ok()) {
    rows.add(from_error("processor", row.error()));
    rows.skipped("branch-counter", "no event is known for this processor",
                 "two counters of the guest's conditional branches");
    return;
  }
  rows.pass("processor", std::string((*row)->name), "an Intel Xeon from Haswell to Granite Rapids");
  // Twice: an alarm takes its counter only once it is armed, a clock at once.
  const auto clock = open_counter(host, 0);
  const auto alarm = open_counter(host, 0);
  for (const auto* counter : {&clock, &alarm})
    if (!counter->ok()) return rows.add(from_error("branch-counter", counter->error()));
  rows.pass("branch-counter", "two pinned events of the guest alone",
            "two counters of the guest's conditional branches");
}

// Each kind of loop, undisturbed and in a storm of exits: to the very branch.
void check_exactness(const Host& host, Rows& rows, const HostCheckOptions& options) {
  const std::string needed = "counts that are exact, to the branch, whatever exits there are";
  if (options.quick || rows.failed("kvm") || rows.failed("branch-counter") ||
      rows.failed("processor"))
    return rows.skipped("exact", options.quick ? "not tried" : "no counter", needed);
  for (const Loop loop : {Loop::kTaken, Loop::kNotTaken, Loop::kMixed}) {
    for (const bool storm : {false, true}) {
      const auto result =
          run_loop(host.kvm, with_counter(host), loop, options.loop_branches, storm);
      if (!result.ok()) return rows.add(from_error("exact", result.error()));
      if (result->exact()) continue;
      return rows.fail(
          "exact",
          fmt::format("{} branches, {}: counted {} of {}", name_of(loop),
                      storm ? "with exits" : "undisturbed", result->counted, result->expected),
          needed, "this processor or its kernel must not record; report it");
    }
  }
  rows.pass("exact", "taken, not taken and mixed, undisturbed and with exits", needed);
}

bool all_pass(const Rows& rows, std::span<const std::string_view> ids) {
  return std::none_of(ids.begin(), ids.end(),
                      [&](std::string_view id) { return rows.failed(id) || rows.unknown(id); });
}

// What each mode needs, by rows.
constexpr std::string_view kForSteps[] = {"kvm", "kvm-run", "breakpoint", "guest-features"};
constexpr std::string_view kForStock[] = {
    "kvm", "kvm-run", "breakpoint",   "guest-features", "bare-metal", "processor", "cores",
    "vmx", "perfmon", "perf-allowed", "branch-counter", "exact",      "smi",       "tsx"};
constexpr std::string_view kForPatched[] = {"time-exits"};
constexpr std::string_view kForTrace[] = {"pt", "pt-free", "pt-guest", "pt-trace"};

bool is_stock_need(std::string_view id) {
  return std::find(std::begin(kForStock), std::end(kForStock), id) != std::end(kForStock);
}

}  // namespace

const char* name_of(RowStatus status) {
  switch (status) {
    case RowStatus::kPass: return "pass";
    case RowStatus::kWarn: return "warn";
    case RowStatus::kFail: return "fail";
  }
  return "";
}

std::vector<const HostRow*> HostReport::blocking(std::string_view mode) const {
  std::vector<const HostRow*> out;
  const auto needs = [mode](std::string_view id) {
    const auto in = [id](auto& ids) {
      return std::find(std::begin(ids), std::end(ids), id) != std::end(ids);
    };
    if (mode == "record_kvm_steps") return in(kForSteps);
    if (mode == "record_kvm_stock") return is_stock_need(id);
    if (mode == "record_kvm_patched") return is_stock_need(id) || in(kForPatched);
    if (mode == "ipt") return is_stock_need(id) || in(kForTrace);
    return false;
  };
  for (const HostRow& row : rows)
    if (row.status == RowStatus::kFail && needs(row.id)) out.push_back(&row);
  return out;
}

std::string HostReport::obstacles(std::string_view mode) const {
  std::string out;
  for (const HostRow* row : blocking(mode))
    out += fmt::format("{}{} ({})", out.empty() ? "" : "; ", row->id, row->seen);
  return out;
}

Result<std::unique_ptr<pmu::Counter>> open_counter(const Host& host, int alarm_signal) {
  const auto row = pmu::usable_event(host.system.cpu());
  if (!row.ok()) return row.error();
  return pmu::PerfCounter::open(host.perf, **row,
                                {.thread = host.kvm.this_thread(), .signal = alarm_signal});
}

HostReport check_host(const Host& host, const HostCheckOptions& options) {
  Rows rows;
  check_kvm_device(host, rows);
  check_running(host, rows, options.quick);
  check_guest_features(host, rows);
  check_patches(host, rows);
  check_processor(host, rows);
  check_counter(host, rows);
  check_counter_settings(host, rows);
  check_exactness(host, rows, options);
  check_quiet(host, rows);
  check_trace(host, rows, options);
  HostReport report;
  HostModes& modes = report.modes;
  modes.record_kvm_steps = all_pass(rows, kForSteps);
  modes.record_kvm_stock = all_pass(rows, kForStock);
  modes.record_kvm_patched = modes.record_kvm_stock && all_pass(rows, kForPatched);
  modes.ipt = modes.record_kvm_stock && all_pass(rows, kForTrace);
  report.rows = rows.take();
  return report;
}

}  // namespace us::hv::kvm
