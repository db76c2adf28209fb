// The system calls that perf counters need, and nothing else of the host: a model can stand on the
// other side in tests. perf_event_open(2).
#pragma once

#include <cstdint>
#include <linux/perf_event.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>

namespace us::pmu {

// Results below zero are negated errno values throughout.
class PerfHost {
 public:
  virtual ~PerfHost() = default;

  // A file descriptor. The event counts `thread` (0: the caller), on whatever CPU it runs.
  virtual int open(const perf_event_attr& attr, pid_t thread) = 0;
  virtual void close(int fd) = 0;
  // PERF_EVENT_IOC_*. The kernel takes a pointer for the period, an integer for all others.
  virtual int control(int fd, unsigned long request, uint64_t argument) = 0;
  // Bytes read; 0: the event is in its error state (a pinned one that found no counter).
  virtual ssize_t read(int fd, void* out, size_t size) = 0;
  // From now on an overflow sends `signal` to `thread`: F_SETOWN_EX, F_SETSIG, O_ASYNC.
  virtual int signal_on_overflow(int fd, int signal, pid_t thread) = 0;

  // The event's control page, or null. Stays until unmap().
  virtual const perf_event_mmap_page* map(int fd) = 0;
  virtual void unmap(const perf_event_mmap_page* page) = 0;
  // RDPMC; only with an index that a control page just gave.
  virtual uint64_t rdpmc(uint32_t index) = 0;
};

// This host, by system calls.
std::unique_ptr<PerfHost> real_perf_host();

}  // namespace us::pmu
