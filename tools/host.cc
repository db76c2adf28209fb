#include "tools/host.h"

namespace us::tools {
namespace {

std::function<HostSeams()>& opener() {
  static std::function<HostSeams()> open = [] {
    return HostSeams{hv::kvm::real_host_system(), hv::kvm::real_kvm_host(), pmu::real_perf_host(),
                     ipt::real_trace_host()};
  };
  return open;
}

}  // namespace

HostSeams open_host() { return opener()(); }

void use_host(std::function<HostSeams()> open) { opener() = std::move(open); }

}  // namespace us::tools
