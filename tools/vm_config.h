// A VM as its operator describes it: vm.toml, or options that say the same. understudy(1),
// vm.toml(5).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "tools/backend.h"

namespace us::tools {

struct VmDisk {
  std::string path;
  bool read_only = false;
  bool secondary_reads_disk = false;  // "disk": a secondary reads the shared image itself
};

struct VmNet {
  std::string mac;      // empty: derived from the VM's name
  std::string backend;  // none | slirp[:hostfwd=…] | vde:PATH | tap:IFNAME
};

struct VmFt {
  std::string secondary, arbiter, credentials;
  uint64_t lag_target_ms = 100;
};

struct VmConfig {
  std::string name = "vm";
  BackendChoice backend;  // of its members only `name` and `cooperative` are the description's
  std::string executor = "auto";  // or interpret, translate: see hv/core/executor.h
  uint64_t memory_bytes = 256u << 20;
  std::string kernel, initrd, cmdline;
  std::vector<VmDisk> disks;
  std::vector<VmNet> nets;
  VmFt ft;
  bool ipt_check = false;
  std::string pmu_profile;
  bool debug_exit = false;  // [debug] exit_port = true
};

// Errors: VM-001 cannot read, VM-002 not TOML (line named), VM-003 unknown key, VM-004 wrong type
// or value. Relative paths inside are taken relative to the file's folder.
Result<VmConfig> read_vm_config(const std::string& path);
Result<VmConfig> parse_vm_config(const std::string& text, const std::string& name);

// "256M", "1G", "65536K", plain bytes. Error VM-004.
Result<uint64_t> parse_size(const std::string& text, const std::string& where);

// A configuration that a run wrote, for who replays or follows it: its backend is never "auto".
// Builds that had one backend did not name it, and it was "soft".
Result<VmConfig> parse_run_config(const std::string& text, const std::string& name);

// The configuration as vm.toml text; parse_vm_config gives it back equal.
std::string to_toml(const VmConfig& config);

// Checks what can be checked without running: files there and readable, backends well-formed, sizes
// sensible. One error per finding.
std::vector<UserError> check_vm_config(const VmConfig& config);

// "52:54:00:12:34:56" to six bytes; empty: not a unicast MAC address.
std::optional<std::array<uint8_t, 6>> parse_mac(const std::string& text);
// The MAC of net device `index` of a VM that names none: stable, locally administered.
std::array<uint8_t, 6> default_mac(const std::string& vm_name, unsigned index);

}  // namespace us::tools
