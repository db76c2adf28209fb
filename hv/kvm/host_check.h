// What this host can do: one row for each thing that recording on real hardware relies on. Where it
// can be tried, it is tried, and the row says what happened; a file of /sys is read only for what
// has no other sign.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "hv/kvm/host_system.h"
#include "hv/kvm/kvm_host.h"
#include "ipt/capture/trace_host.h"
#include "pmu/counter.h"
#include "pmu/perf_host.h"

namespace us::hv::kvm {

enum class RowStatus : uint8_t { kPass, kWarn, kFail };
const char* name_of(RowStatus status);

struct HostRow {
  std::string id;
  RowStatus status = RowStatus::kPass;
  std::string seen, needed, mend;  // mend: empty where nothing is to be done
};

struct HostModes {
  bool record_soft = true;          // the software processor: anywhere
  bool record_kvm_steps = false;    // KVM, instructions stepped: needs no counter
  bool record_kvm_stock = false;    // KVM and a branch counter, for guests that read no TSC
  bool record_kvm_patched = false;  // any guest
  bool ipt = false;                 // Intel PT of a KVM guest can be had
};

struct HostReport {
  std::vector<HostRow> rows;
  HostModes modes;

  // The rows that keep a mode from working, by their ids.
  std::vector<const HostRow*> blocking(std::string_view mode) const;
  // The same in one line, each with what was seen; empty: none.
  std::string obstacles(std::string_view mode) const;
};

// The seams' other sides.
struct Host {
  HostSystem& system;
  KvmHost& kvm;
  pmu::PerfHost& perf;
  ipt::TraceHost& trace;
};

struct HostCheckOptions {
  // Leaves out the rows for which guests are run; they then warn, and modes that need them are not
  // promised.
  bool quick = false;
  uint64_t loop_branches = 1'000'000;  // of each of the six guests that test the counter
};

HostReport check_host(const Host& host, const HostCheckOptions& options = {});

// The counter of KvmOptions::counter on this host; its errors are those of pmu::usable_event and
// PerfCounter::open.
Result<std::unique_ptr<pmu::Counter>> open_counter(const Host& host, int alarm_signal);

}  // namespace us::hv::kvm
