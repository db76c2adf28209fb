// The FT figures for Prometheus, as text over HTTP at a loopback address or a Unix socket.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "tools/control/status.h"

namespace us::tools {

class MetricsServer {
 public:
  virtual ~MetricsServer() = default;
  virtual const std::string& where() const = 0;
};

// `where`: unix:PATH or ADDR:PORT with a loopback ADDR. `get` is called on the server's thread.
// Errors: MET-001 bad address, MET-002 cannot listen.
Result<std::unique_ptr<MetricsServer>> serve_metrics(const std::string& where,
                                                     std::function<FtStatus()> get);

// What it serves: Prometheus' text exposition format 0.0.4.
std::string metrics_text(const FtStatus& status);

}  // namespace us::tools
