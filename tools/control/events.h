// What happened to a protected VM, one JSON object a line: {"schema", "time", "vm", "event",
// "detail"}. Appended and flushed line by line, so that a reader sees each as it happens.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"

namespace us::tools {

class EventLog {
 public:
  // Appends to `path` (made where missing). Error EVT-001 cannot be opened.
  static Result<std::unique_ptr<EventLog>> open(const std::string& path,
                                                const std::string& vm_name);
  ~EventLog();
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  // Any thread. A full disk loses the line and is said once on stderr: the VM goes on.
  void write(const std::string& event, const std::string& detail);

 private:
  EventLog(int fd, std::string vm_name);
  std::mutex mutex_;
  int fd_;
  std::string vm_name_;
  bool complained_ = false;
  bool cut_ = false;  // the last line in the file is not whole
};

}  // namespace us::tools
