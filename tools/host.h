// The host that verbs work on: KVM, perf and the system, behind their seams.
#pragma once

#include <functional>
#include <memory>

#include "hv/kvm/host_check.h"

namespace us::tools {

struct HostSeams {
  std::shared_ptr<hv::kvm::HostSystem> system;
  std::shared_ptr<hv::kvm::KvmHost> kvm;
  std::shared_ptr<pmu::PerfHost> perf;
  std::shared_ptr<ipt::TraceHost> trace;
  hv::kvm::Host host() const { return {*system, *kvm, *perf, *trace}; }
};

// The seams for one user: a machine, or a check of the host.
HostSeams open_host();
// Where they come from; the kernel, unless a model takes its place before the first verb runs.
void use_host(std::function<HostSeams()> open);

}  // namespace us::tools
