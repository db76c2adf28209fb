// The last seam, beside KvmHost, PerfHost and TraceHost: what hostcheck asks of the machine it runs
// on.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "pmu/events.h"

namespace us::hv::kvm {

class HostSystem {
 public:
  virtual ~HostSystem() = default;

  // A small file of /proc or /sys without the white space at its end; nothing: not to be read.
  virtual std::optional<std::string> read_file(const std::string& path) = 0;
  virtual std::array<uint32_t, 4> cpuid(uint32_t leaf, uint32_t subleaf) = 0;  // EAX EBX ECX EDX
  virtual pmu::CpuId cpu() = 0;
  // By /dev/cpu/0/msr; nothing: not to be read (no driver, no right).
  virtual std::optional<uint64_t> read_msr(uint32_t index) = 0;
  virtual std::string kernel_release() = 0;
};

std::unique_ptr<HostSystem> real_host_system();

}  // namespace us::hv::kvm
