// The system calls that a capture of Intel PT needs, and nothing else of the host: a model stands
// on the other side in tests (hv/kvm/model/trace_model.h). perf_event_open(2), section "MMAP
// layout".
#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/perf_event.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>

namespace us::ipt {

// Results below zero are negated errno values throughout.
class TraceHost {
 public:
  virtual ~TraceHost() = default;

  // A small file of /sys without the white space at its end; nothing: not to be read.
  virtual std::optional<std::string> read_file(const std::string& path) = 0;
  // A file descriptor. The event follows `thread` (0: the caller).
  virtual int open(const perf_event_attr& attr, pid_t thread) = 0;
  virtual void close(int fd) = 0;
  // PERF_EVENT_IOC_ENABLE or _DISABLE.
  virtual int control(int fd, unsigned long request) = 0;
  // Bytes read; 0: the event is in its error state (a pinned one that lost the hardware).
  virtual ssize_t read(int fd, void* out, size_t size) = 0;
  // `bytes` of the event's memory from `offset` on, to read and write; null: `error` says why.
  // Pages are of page_bytes().
  virtual void* map(int fd, size_t bytes, uint64_t offset, int& error) = 0;
  virtual void unmap(void* start, size_t bytes) = 0;
  virtual size_t page_bytes() = 0;
  // Waits until the event has something to read: 1; 0: `timeout_ms` went by first. From any thread.
  virtual int wait(int fd, int timeout_ms) = 0;
};

// This host, by system calls.
std::unique_ptr<TraceHost> real_trace_host();

}  // namespace us::ipt
