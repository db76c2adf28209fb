// One intel_pt event with its two buffers: perf's ring of records, and the AUX area that the
// processor writes trace into. The kernel moves `aux_head` only when it stops the trace (watermark,
// the thread's being scheduled out, PERF_EVENT_IOC_DISABLE); so after stop() every byte of the
// stretch has been published.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "base/bytes.h"
#include "base/result.h"
#include "ipt/capture/trace_pmu.h"

namespace us::ipt {

struct AuxOptions {
  pid_t thread = 0;  // 0: the caller's
  TraceScope scope = TraceScope::kEverything;
  size_t aux_bytes = size_t{64} << 20;  // powers of two, of pages
  size_t ring_bytes = size_t{256} << 10;
};

class AuxEvent {
 public:
  // The event stands still. Errors: IPT-004 perf refuses it, IPT-005 its buffers cannot be mapped;
  // both with the kernel's reason. `host` outlives it.
  static Result<std::unique_ptr<AuxEvent>> open(TraceHost& host, const TracePmu& pmu,
                                                const AuxOptions& options);
  ~AuxEvent();
  AuxEvent(const AuxEvent&) = delete;
  AuxEvent& operator=(const AuxEvent&) = delete;

  // False: the kernel refused.
  bool go() { return host_.control(fd_, PERF_EVENT_IOC_ENABLE) >= 0; }
  bool stop() { return host_.control(fd_, PERF_EVENT_IOC_DISABLE) >= 0; }

  // Gives at most `limit` of the published bytes to `take`, in pieces, and the room back to the
  // kernel. Returns what was lost since the last call. One caller at a time (see mutex()).
  uint32_t collect(const std::function<void(ByteSpan)>& take, uint64_t limit = ~uint64_t{0});
  // True: the hardware is the event's own. Otherwise a pinned event is in its error state.
  bool has_hardware() const;
  bool started() const { return started_; }

  // Whoever collects holds it.
  std::mutex& mutex() { return mutex_; }
  int wait(int timeout_ms) { return host_.wait(fd_, timeout_ms); }
  uint64_t lost_records() const { return lost_records_; }

 private:
  AuxEvent(TraceHost& host, const AuxOptions& options) : host_(host), options_(options) {}
  Status map();

  TraceHost& host_;
  AuxOptions options_;
  std::mutex mutex_;
  int fd_ = -1;
  perf_event_mmap_page* page_ = nullptr;
  uint8_t* aux_ = nullptr;
  uint64_t ring_tail_ = 0, aux_tail_ = 0, aux_end_ = 0;
  // Written by whoever collects, read by the owner.
  std::atomic<bool> started_{false};
  std::atomic<uint64_t> lost_records_{0};
};

}  // namespace us::ipt
