// The perf system calls as a kernel would answer them, with a guest that retires branches on
// command: what perf_counter.cc talks to in tests.
#pragma once

#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#include "pmu/perf_host.h"

namespace us::pmu::test {

class PerfModel final : public PerfHost {
 public:
  // --- what a test sets
  int open_error = 0;     // of every open
  int counters_free = 2;  // pinned events beyond these are in their error state
  bool rdpmc_allowed = true;
  bool multiplexed = false;  // the counter was shared for a while
  bool throttled = false;    // sampling events are silent, and do not count
  int torn_pages = 0;        // so many looks at a control page find it being written
  std::vector<perf_event_attr> opened;
  std::vector<std::pair<int, unsigned long>> controls;  // every call, in order
  int signals = 0;                                      // sent to the owner
  uint64_t rdpmcs = 0;

  // The guest retires `n` conditional branches.
  void run(uint64_t n) {
    for (auto& [fd, e] : events_) {
      if (!e.enabled || e.error || (e.sampling && throttled)) continue;
      e.count += n;
      publish(e);
      if (!e.sampling) continue;
      for (e.since += n; e.enabled && e.since >= e.period; e.since -= e.period) overflow(e);
    }
  }
  // Takes the counters away, as a pinned event of higher priority does.
  void take_counters() {
    for (auto& [fd, e] : events_) {
      e.error = true;
      e.page.index = 0;
    }
  }
  int open_files() const { return static_cast<int>(events_.size()); }
  int mapped_pages() const { return mapped_; }

  // --- PerfHost
  int open(const perf_event_attr& attr, pid_t) override {
    opened.push_back(attr);
    if (open_error != 0) return -open_error;
    Event& e = events_[next_fd_];
    e.sampling = attr.sample_period != 0;
    e.period = attr.sample_period;
    e.enabled = attr.disabled == 0;
    e.error = static_cast<int>(events_.size()) > counters_free;
    return next_fd_++;
  }
  void close(int fd) override { events_.erase(fd); }
  int control(int fd, unsigned long request, uint64_t argument) override {
    controls.emplace_back(fd, request);
    Event& e = events_.at(fd);
    switch (request) {
      case PERF_EVENT_IOC_ENABLE: e.enabled = true; break;
      case PERF_EVENT_IOC_DISABLE: e.enabled = false; break;
      case PERF_EVENT_IOC_REFRESH:  // adds; kernel/events/core.c, _perf_event_refresh
        e.limit += static_cast<int>(argument);
        e.enabled = true;
        break;
      case PERF_EVENT_IOC_RESET: e.count = 0; break;
      case PERF_EVENT_IOC_PERIOD:
        if (!e.sampling) return -EINVAL;
        e.period = argument;
        e.since = 0;
        break;
      default: return -ENOTTY;
    }
    publish(e);
    return 0;
  }
  ssize_t read(int fd, void* out, size_t size) override {
    const Event& e = events_.at(fd);
    if (e.error) return 0;
    const uint64_t values[3] = {e.count, 1000, multiplexed ? 600u : 1000u};
    if (size < sizeof values) return -ENOSPC;
    std::memcpy(out, values, sizeof values);
    return sizeof values;
  }
  // F_SETOWN_EX takes the thread id 0 without a word, and the signal goes nowhere.
  int signal_on_overflow(int fd, int, pid_t thread) override {
    events_.at(fd).owned = thread > 0;
    return 0;
  }
  const perf_event_mmap_page* map(int fd) override {
    ++mapped_;
    Event& e = events_.at(fd);
    e.mapped = true;
    publish(e);
    return &e.page;
  }
  void unmap(const perf_event_mmap_page*) override { --mapped_; }
  // The hardware counter holds the low 48 bits, counting up from a base the kernel knows; the page
  // changes between the look and the check while torn_pages lasts.
  uint64_t rdpmc(uint32_t index) override {
    ++rdpmcs;
    for (auto& [fd, e] : events_) {
      if (e.page.index != index + 1) continue;
      if (torn_pages > 0) {
        --torn_pages;
        e.page.lock += 2;
      }
      return (kBase + e.count) & kMask;
    }
    return 0;
  }

 private:
  static constexpr uint64_t kMask = (uint64_t{1} << 48) - 1;
  // As the kernel starts a counter: below the wrap of its 48 bits, seen as a negative number.
  static constexpr uint64_t kBase = uint64_t{0} - (uint64_t{1} << 40);

  struct Event {
    bool sampling = false, enabled = false, error = false, owned = false, mapped = false;
    uint64_t count = 0, period = 0, since = 0;
    int limit = 0;
    perf_event_mmap_page page{};
  };
  void overflow(Event& e) {
    if (e.owned) ++signals;
    if (e.limit > 0 && --e.limit == 0) e.enabled = false;
  }
  void publish(Event& e) {
    e.page.lock += 2;
    e.page.cap_user_rdpmc = rdpmc_allowed;
    e.page.pmc_width = 48;
    e.page.index = e.error || !e.mapped ? 0 : 1;
    e.page.offset = static_cast<int64_t>(uint64_t{1} << 40);
    e.page.time_enabled = 1000;
    e.page.time_running = multiplexed ? 600 : 1000;
  }

  std::map<int, Event> events_;
  int next_fd_ = 3;
  int mapped_ = 0;
};

}  // namespace us::pmu::test
