// The system's side of the model: a bare-metal Ice Lake server, prepared as docs/hardware.md says.
// Tests spoil it.
#pragma once

#include <map>
#include <string>

#include "hv/kvm/host_system.h"

namespace us::hv::kvm::model {

class SystemModel : public HostSystem {
 public:
  std::map<std::string, std::string> files = {
      {"/sys/module/kvm_intel/parameters/ept", "Y"},
      {"/sys/module/kvm_intel/parameters/unrestricted_guest", "Y"},
      {"/sys/module/kvm_intel/parameters/pt_mode", "0"},
      {"/sys/devices/cpu/freeze_on_smi", "1"},
      {"/proc/sys/kernel/perf_event_paranoid", "1"},
      {"/proc/sys/kernel/nmi_watchdog", "0"},
      {"/sys/devices/system/cpu/smt/active", "0"},
      {"/sys/devices/system/cpu/isolated", "2-3"},
      {"/sys/kernel/mm/ksm/run", "0"},
      {"/proc/sys/kernel/numa_balancing", "0"},
  };
  std::map<uint32_t, uint64_t> msrs = {
      {0x483, uint64_t{1} << (32 + 12)}, {0x484, uint64_t{1} << (32 + 13)}, {0x485, 1u << 14}};
  std::map<uint32_t, std::array<uint32_t, 4>> leaves = {
      {1, {0, 0, 0, 0}}, {7, {0, 0, 0, 0}}, {0xa, {0x0730'0805, 0, 0, 0}}};
  pmu::CpuId processor = {"GenuineIntel", 6, 0x6a, 6, pmu::CoreType::kOnly};
  std::string release = "6.1.0-28-amd64";

  std::optional<std::string> read_file(const std::string& path) override {
    const auto at = files.find(path);
    return at == files.end() ? std::nullopt : std::optional(at->second);
  }
  std::array<uint32_t, 4> cpuid(uint32_t leaf, uint32_t) override { return leaves[leaf]; }
  pmu::CpuId cpu() override { return processor; }
  std::optional<uint64_t> read_msr(uint32_t index) override {
    const auto at = msrs.find(index);
    return at == msrs.end() ? std::nullopt : std::optional(at->second);
  }
  std::string kernel_release() override { return release; }
};

}  // namespace us::hv::kvm::model
