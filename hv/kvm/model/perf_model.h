// The perf system calls over a modelled guest: counters that count what the guest retires, with an
// alarm that comes late by a drawn skid, is throttled, or loses its counter.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "pmu/perf_host.h"
#include "pmu/random.h"
#include "pmu/skid.h"

namespace us::hv::kvm::model {

struct PerfOptions {
  pmu::SkidModel skid;
  uint64_t seed = 1;
  bool rdpmc = true;
  int open_error = 0;             // of every open: -EACCES...
  int counters_free = 4;          // pinned events beyond these find no counter
  uint64_t overcount_one_in = 0;  // an overflow in so many counts as a branch
  uint64_t throttle_one_in = 0;   // an overflow in so many is swallowed, the event stopped
};

class PerfModel final : public pmu::PerfHost {
 public:
  explicit PerfModel(const PerfOptions& options) : options_(options), random_(options.seed) {}

  // Of the guest: conditional branches retired.
  void attach(std::function<uint64_t()> retired, std::function<void(int signal)> send) {
    retired_ = std::move(retired);
    send_ = std::move(send);
  }
  // The count at which the next interrupt arrives; nothing: none is due.
  std::optional<uint64_t> interrupt_at() const;
  // The guest has been stopped there.
  void interrupt();
  void take_counters();

  std::vector<perf_event_attr> opened;
  uint64_t overflows = 0, throttled = 0;

  int open(const perf_event_attr& attr, pid_t thread) override;
  void close(int fd) override { events_.erase(fd); }
  int control(int fd, unsigned long request, uint64_t argument) override;
  ssize_t read(int fd, void* out, size_t size) override;
  int signal_on_overflow(int fd, int signal, pid_t thread) override;
  const perf_event_mmap_page* map(int fd) override;
  void unmap(const perf_event_mmap_page*) override {}
  uint64_t rdpmc(uint32_t index) override;

 private:
  struct Event {
    bool sampling = false, enabled = false, error = false, mapped = false;
    uint64_t count = 0;  // up to `since`
    uint64_t since = 0;  // retired when it was last enabled or reset
    uint64_t period = 0;
    int limit = 0;
    int signal = 0;
    std::optional<uint64_t> due;  // retired count at which the interrupt arrives
    perf_event_mmap_page page{};
  };
  uint64_t retired() const { return (retired_ ? retired_() : 0) + leaked_; }
  uint64_t count_of(const Event& e) const;
  void publish(Event& e);
  void plan(Event& e);

  PerfOptions options_;
  pmu::Random random_;
  std::function<uint64_t()> retired_;
  std::function<void(int)> send_;
  std::map<int, Event> events_;
  uint64_t leaked_ = 0;  // counts that are not the guest's
  int next_fd_ = 100;
};

}  // namespace us::hv::kvm::model
