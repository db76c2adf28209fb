// The options that describe a VM on the command line, shared by every verb that runs one.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "tools/vm_config.h"

namespace us::tools {

// Registers the options on `app`; resolve() after parsing gives the configuration: the file's, with
// what the options say on top.
class VmOptions {
 public:
  void add_to(CLI::App& app);
  Result<VmConfig> resolve() const;

 private:
  std::string file_, name_, backend_, executor_, memory_, kernel_, initrd_, cmdline_;
  std::vector<std::string> disks_, nets_;
  BackendChoice here_;  // what options say, but for the name
  bool debug_exit_ = false;
};

}  // namespace us::tools
