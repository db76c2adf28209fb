// The control socket of a protected VM's process: how `status`, `failover`, `stop`, `enable` and
// `disable` reach it. One Unix stream socket a process, in a folder of the user's own; a request
// and a reply are one JSON line each.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace us::tools {

// $UNDERSTUDY_RUNTIME_DIR, or /run/understudy for root, or $XDG_RUNTIME_DIR/understudy, or
// /tmp/understudy-UID. Made with mode 0700 where missing.
Result<std::string> runtime_folder();

// Answers requests on a thread of its own until destroyed; the socket file goes with it. The socket
// is FOLDER/NAME.PID.sock, so that a VM's two sides can share a host.
class ControlServer {
 public:
  // {"verb":"status"|"failover"|"stop"|"enable"|"disable", ...}. Returns the reply; a UserError
  // becomes {"error":{...}}.
  using Handler = std::function<Result<nlohmann::json>(const nlohmann::json& request)>;
  static Result<std::unique_ptr<ControlServer>> start(const std::string& vm_name, Handler handler);
  virtual ~ControlServer() = default;
  virtual const std::string& path() const = 0;
};

// Sends `request` to the process of that name that fits: `role` "primary", "secondary" or empty
// (a live side before a standby one). Errors: CTL-001 no such VM is running, CTL-002 it does not
// answer, and the handler's own.
Result<nlohmann::json> control_request(const std::string& vm_name, const std::string& role,
                                       const nlohmann::json& request);

}  // namespace us::tools
