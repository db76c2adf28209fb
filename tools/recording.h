// What a recording's directory holds besides its log, and how the log describes its machine:
//   section "vm"       the VM description as vm.toml text
//   section "machine"  hv/machine_config.h bytes: all that decides how the machine behaves
//   section "boot"     JSON: kernel and initrd by digest, command line
//   section "host"     JSON: build and host it was made on
//   section "pmu"      the host's profile as TOML, where one was named
// The kernel and initrd themselves are kept beside the log (files/kernel, files/initrd), so a
// recording replays anywhere.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "hv/machine.h"
#include "pmu/profile.h"
#include "replay-engine/log_source.h"
#include "replay-engine/recorder.h"
#include "tools/vm_config.h"

namespace us::tools {

// Copies kernel and initrd into DIR/files and returns the boot recipe section. Errors: REC-001.
Result<Bytes> keep_boot_files(const std::filesystem::path& folder, const VmConfig& config);

struct RecordedVm {
  VmConfig config;
  hv::MachineConfig machine;
  hv::BootConfig boot;  // paths inside the recording
  std::optional<pmu::HostProfile> profile;
};
// Reads the description back and checks the kept files against their digests. Errors: LOG-022 a
// section is missing or broken, REC-002 a kept file is missing or changed (exit 5).
Result<RecordedVm> read_description(const std::filesystem::path& folder,
                                    const replay::Sections& sections);

// Bytes of the manifest and of all segments there are.
uint64_t recording_bytes(const std::filesystem::path& folder);

// The JSON of section "host": this build and host, and the backend of the machine.
Bytes host_section(const std::string& backend);

}  // namespace us::tools
