// What `protect` and `standby` share on the command line, and what it means.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "tools/control/events.h"
#include "tools/control/metrics.h"
#include "tools/ft_live.h"
#include "tools/ipt_options.h"
#include "tools/vm_config.h"

namespace us::tools {

class FtOptions {
 public:
  void add_to(CLI::App& app);

  // Opens arbiter, credentials and event log as the options say, else the VM's [ft]. `role` names
  // this side towards the arbiter together with the host. Errors: FT-002 no credentials, FT-003 no
  // arbiter can be thought of, and those of load_fit_profile, open_arbiter and load_credentials.
  Result<std::unique_ptr<FtBase>> open(const VmConfig& config, const std::string& role) const;
  std::string metrics, stats;

 private:
  std::string arbiter_, credentials_, node_, events_, pmu_profile_;
  IptOptions ipt_;
  uint64_t timeout_ms_ = 500;
  uint64_t lag_target_ms_ = 0;
};

// "host/role": stable over restarts.
std::string node_name(const std::string& role);

}  // namespace us::tools
