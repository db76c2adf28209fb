#include "hv/kvm/host_rows.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fmt/format.h>

#include "hv/core/no_bus.h"
#include "hv/kvm/cpuid_table.h"
#include "hv/kvm/vm.h"

namespace us::hv::kvm {
namespace {

std::string shown(const std::optional<std::string>& text) { return text ? *text : "not there"; }

// "6.1.0-28-amd64" -> {6, 1}.
std::pair<unsigned, unsigned> version_of(const std::string& release) {
  unsigned major = 0, minor = 0;
  const char* const end = release.data() + release.size();
  auto at = std::from_chars(release.data(), end, major);
  if (at.ptr < end && *at.ptr == '.') std::from_chars(at.ptr + 1, end, minor);
  return {major, minor};
}

// Kernels that carry the host's FREEZE_IN_SMM into the guest's DEBUGCTL: Debian's 6.1 and 6.12 have
// it, upstream has it from 6.17 on.
bool forwards_freeze(const std::string& release) {
  const auto version = version_of(release);
  const bool debian = release.find("amd64") != std::string::npos &&
                      (version == std::pair{6u, 1u} || version == std::pair{6u, 12u});
  return debian || version >= std::pair{6u, 17u};
}

// VMX controls that may be 1, in the high half of the capability MSRs. SDM 3D A.3 to A.5.
constexpr uint32_t kEntryControls = 0x484, kExitControls = 0x483, kSecondaryControls = 0x48b;
bool may_set(const std::optional<uint64_t>& msr, unsigned bit) {
  return msr && (*msr >> (32 + bit) & 1) != 0;
}

void check_vmx(const Host& host, Rows& rows) {
  const std::string needed =
      "VMX with EPT, unrestricted guests, and PERF_GLOBAL_CTRL loaded on entry and exit";
  const auto ept = host.system.read_file("/sys/module/kvm_intel/parameters/ept");
  const auto unrestricted =
      host.system.read_file("/sys/module/kvm_intel/parameters/unrestricted_guest");
  const auto on = [](const std::optional<std::string>& v) { return v && (*v == "Y" || *v == "1"); };
  if (!on(ept) || !on(unrestricted))
    return rows.fail(
        "vmx",
        fmt::format("kvm_intel's ept {}, unrestricted_guest {}", shown(ept), shown(unrestricted)),
        needed, "load kvm_intel without ept=0 or unrestricted_guest=0");
  const auto entry = host.system.read_msr(kEntryControls);
  const auto exit = host.system.read_msr(kExitControls);
  if (!entry || !exit)
    return rows.warn("vmx", "EPT and unrestricted guests; its other controls cannot be read",
                     needed, "as root: `modprobe msr`");
  constexpr unsigned kEntryLoads = 13, kExitLoads = 12;
  rows.judge("vmx", may_set(entry, kEntryLoads) && may_set(exit, kExitLoads),
             fmt::format("entry controls {:#x}, exit controls {:#x}", *entry, *exit), needed,
             "a processor from Haswell on");
}

void check_perfmon(const Host& host, Rows& rows) {
  constexpr unsigned kVersion = 3, kCounters = 4;
  const auto leaf = host.system.cpuid(0xa, 0);
  const unsigned version = leaf[0] & 0xff, counters = leaf[0] >> 8 & 0xff;
  rows.judge(
      "perfmon", version >= kVersion && counters >= kCounters,
      fmt::format("version {}, {} counters", version, counters),
      fmt::format("architectural performance monitoring {}, {} counters", kVersion, kCounters),
      "run on bare metal: hypervisors mostly hide it");
}

}  // namespace

bool Rows::failed(std::string_view id) const {
  return std::any_of(rows_.begin(), rows_.end(), [&](const HostRow& row) {
    return row.id == id && row.status == RowStatus::kFail;
  });
}

std::vector<kvm_cpuid_entry2> guest_cpuid() {
  NoBus bus;
  auto memory = GuestMemory::create(1u << 20);
  US_CHECK(memory.ok());
  const auto cpu = std::make_unique<Cpu>(**memory, bus);
  return cpuid_table(*cpu, true);
}

void check_patches(const Host& host, Rows& rows) {
  constexpr const char* kModules = "the modules of hv/kvm/patches (docs/hardware.md)";
  const int device = host.kvm.open_device();
  const int vm = device >= 0 ? host.kvm.create_vm(device) : -1;
  const Features features = vm >= 0 ? features_of(host.kvm, vm) : Features{};
  if (vm >= 0) host.kvm.close(vm);
  if (device >= 0) host.kvm.close(device);
  const std::string build = std::string("build and load ") + kModules;
  rows.judge("time-exits", features.time_exits,
             features.time_exits ? "RDTSC and RDTSCP exit" : "a guest reads the host's counter",
             std::string("for guests that read the time stamp counter: ") + kModules, build);
  const auto wish = [&](const char* id, bool there, const char* seen, const char* without) {
    if (there) return rows.pass(id, seen, kModules);
    rows.warn(id, without, kModules, build);
  };
  wish("monitor-steps", features.monitor_steps, "steps by the monitor trap flag",
       "steps by the guest's own trap flag, with breakpoints where exceptions may lead");
  wish("pt-guest-only", features.guest_only_trace, "Intel PT in the guest alone",
       "Intel PT traces the host too, which is dropped again: more to write and to read");
  wish("spurious-faults", features.hides_spurious_faults, "hidden from guests",
       "a guest may see page faults that another run does not have");
}

void check_processor(const Host& host, Rows& rows) {
  constexpr uint32_t kHypervisor = 1u << 31, kHybrid = 1u << 15, kTsx = 1u << 4 | 1u << 11;
  rows.judge("bare-metal", (host.system.cpuid(1, 0)[2] & kHypervisor) == 0,
             (host.system.cpuid(1, 0)[2] & kHypervisor) == 0 ? "no hypervisor underneath"
                                                             : "a hypervisor underneath",
             "bare metal: counters inside another VM depend on its host", "run on the host itself");
  const auto leaf7 = host.system.cpuid(7, 0);
  rows.judge("cores", (leaf7[3] & kHybrid) == 0,
             (leaf7[3] & kHybrid) == 0 ? "all of one kind" : "of two kinds",
             "cores of one kind, that count by the same event",
             "use a Xeon, or the software processor");
  check_vmx(host, rows);
  check_perfmon(host, rows);
  rows.judge("tsx", (leaf7[1] & kTsx) == 0,
             (leaf7[1] & kTsx) == 0 ? "off" : "transactions work, and their aborts are counted",
             "TSX switched off for guests and host", "boot with `tsx=off`");
  const auto smi = host.system.read_file("/sys/devices/cpu/freeze_on_smi");
  const std::string release = host.system.kernel_release();
  const std::string smi_needed = "counters that stop in system management mode, in guests as well";
  if (smi != "1") {
    rows.fail("smi", fmt::format("freeze_on_smi {}", shown(smi)), smi_needed,
              "echo 1 > /sys/devices/cpu/freeze_on_smi");
  } else if (!forwards_freeze(release)) {
    rows.warn("smi", fmt::format("freeze_on_smi 1; Linux {} may not carry it into guests", release),
              smi_needed, "Debian's 6.1 or 6.12, or Linux 6.17 or newer");
  } else {
    rows.pass("smi", fmt::format("freeze_on_smi 1, Linux {}", release), smi_needed);
  }
}

void check_counter_settings(const Host& host, Rows& rows) {
  const auto paranoid = host.system.read_file("/proc/sys/kernel/perf_event_paranoid");
  const std::string needed = "perf_event_paranoid at most 1, or CAP_PERFMON";
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_TASK_CLOCK;
  attr.disabled = 1;
  const int fd = host.perf.open(attr, 0);  // counts the kernel too, as a guest's counter does
  if (fd >= 0) host.perf.close(fd);
  rows.judge(
      "perf-allowed", fd >= 0,
      fd >= 0 ? fmt::format("events of kernel mode open (perf_event_paranoid {})", shown(paranoid))
              : fmt::format("{} (perf_event_paranoid {})", std::strerror(-fd), shown(paranoid)),
      needed, "sysctl kernel.perf_event_paranoid=1, or give the program CAP_PERFMON");
  const auto watchdog = host.system.read_file("/proc/sys/kernel/nmi_watchdog");
  if (watchdog && *watchdog != "0") {
    rows.warn("nmi-watchdog", fmt::format("nmi_watchdog {}", *watchdog),
              "off: it holds a counter, and its NMIs fall into guests",
              "sysctl kernel.nmi_watchdog=0");
  } else {
    rows.pass("nmi-watchdog", fmt::format("nmi_watchdog {}", shown(watchdog)),
              "off: it holds a counter, and its NMIs fall into guests");
  }
}

// Nothing that changes what a guest does, but much that changes how well.
void check_quiet(const Host& host, Rows& rows) {
  const auto wish = [&](const char* id, bool good, std::string seen, const char* needed,
                        const char* mend) {
    if (good) return rows.pass(id, std::move(seen), needed);
    rows.warn(id, std::move(seen), needed, mend);
  };
  const auto smt = host.system.read_file("/sys/devices/system/cpu/smt/active");
  wish("smt", !smt || *smt == "0", fmt::format("smt/active {}", shown(smt)),
       "one thread a core: eight counters, and nobody beside the guest",
       "echo off > /sys/devices/system/cpu/smt/control");
  const auto isolated = host.system.read_file("/sys/devices/system/cpu/isolated");
  wish("isolated", isolated && !isolated->empty(), fmt::format("isolated {}", shown(isolated)),
       "a core that nothing else runs on", "boot with `isolcpus=` and run the VM there");
  const auto ksm = host.system.read_file("/sys/kernel/mm/ksm/run");
  const auto numa = host.system.read_file("/proc/sys/kernel/numa_balancing");
  wish("memory-stays", (!ksm || *ksm == "0") && (!numa || *numa == "0"),
       fmt::format("ksm/run {}, numa_balancing {}", shown(ksm), shown(numa)),
       "memory that is neither merged nor moved",
       "echo 0 > /sys/kernel/mm/ksm/run; sysctl kernel.numa_balancing=0");
  static constexpr size_t kTrial = 1 << 20;
  alignas(4096) static uint8_t trial[kTrial];
  const int pinned = host.kvm.pin_memory(trial, kTrial);
  wish("memory-pinned", pinned >= 0, pinned >= 0 ? "can be pinned" : std::strerror(-pinned),
       "the right to pin a guest's memory", "raise the limit of locked memory (`ulimit -l`)");
}

}  // namespace us::hv::kvm
