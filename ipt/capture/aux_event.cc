#include "ipt/capture/aux_event.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>

#include "base/check.h"
#include "ipt/capture/records.h"
#include "ipt/epoch_digest.h"

namespace us::ipt {
namespace {

// A quarter: the kernel publishes, and wakes the copier, with three left for what comes meanwhile.
constexpr size_t kWatermarkPart = 4;

UserError refused(int error) {
  UserError e{.id = "IPT-004",
              .exit_code = ExitCode::kHostCannot,
              .what = "perf gives no Intel PT event for the vCPU",
              .seen = std::strerror(error),
              .needed = "Intel PT for one thread, and nobody else who uses it there",
              .mend = "see perf_event_open(2) for this error"};
  switch (error) {
    case EBUSY: e.mend = "end who else traces (`perf record -e intel_pt`)"; break;
    case EACCES:
    case EPERM:
      e.mend = "set kernel.perf_event_paranoid to 1 or less, or give the program CAP_PERFMON";
      break;
    case EMFILE: e.mend = "raise the limit of open files (`ulimit -n`)"; break;
    default: break;
  }
  return e;
}

UserError not_mapped(const char* what, size_t bytes, int error) {
  return {.id = "IPT-005",
          .exit_code = ExitCode::kHostCannot,
          .what = fmt::format("the {} of an Intel PT event cannot be mapped", what),
          .seen = fmt::format("{} for {} KiB", std::strerror(error), bytes >> 10),
          .needed = "memory that the kernel locks for the trace",
          .mend =
              "raise kernel.perf_event_mlock_kb or the limit of locked memory (`ulimit -l`), or "
              "give the program CAP_IPC_LOCK"};
}

}  // namespace

Result<std::unique_ptr<AuxEvent>> AuxEvent::open(TraceHost& host, const TracePmu& pmu,
                                                 const AuxOptions& options) {
  US_CHECK(std::has_single_bit(options.aux_bytes) && std::has_single_bit(options.ring_bytes) &&
               options.aux_bytes % host.page_bytes() == 0 &&
               options.ring_bytes % host.page_bytes() == 0,
           "buffers of {} and {} bytes", options.aux_bytes, options.ring_bytes);
  std::unique_ptr<AuxEvent> event(new AuxEvent(host, options));
  const auto watermark = static_cast<uint32_t>(options.aux_bytes / kWatermarkPart);
  event->fd_ = host.open(make_trace_attr(pmu, options.scope, watermark), options.thread);
  if (event->fd_ < 0) return refused(-event->fd_);
  if (Status s = event->map(); !s.ok()) return s.error();
  return event;
}

Status AuxEvent::map() {
  int error = 0;
  const size_t ring = host_.page_bytes() + options_.ring_bytes;
  page_ = static_cast<perf_event_mmap_page*>(host_.map(fd_, ring, 0, error));
  if (page_ == nullptr) return not_mapped("records", ring, -error);
  page_->aux_offset = ring;
  page_->aux_size = options_.aux_bytes;
  // Writable: only then does the kernel stop at `aux_tail` instead of writing over what has not
  // been read.
  aux_ = static_cast<uint8_t*>(host_.map(fd_, options_.aux_bytes, ring, error));
  if (aux_ == nullptr) return not_mapped("buffer", options_.aux_bytes, -error);
  return Done{};
}

AuxEvent::~AuxEvent() {
  if (aux_ != nullptr) host_.unmap(aux_, options_.aux_bytes);
  if (page_ != nullptr) host_.unmap(page_, host_.page_bytes() + options_.ring_bytes);
  if (fd_ >= 0) host_.close(fd_);
}

bool AuxEvent::has_hardware() const {
  uint64_t value = 0;
  return host_.read(fd_, &value, sizeof value) > 0;
}

uint32_t AuxEvent::collect(const std::function<void(ByteSpan)>& take, uint64_t limit) {
  // Both heads: what the kernel wrote before it moved one is seen by who has seen it moved. Both
  // tails: what was read is read before the kernel may write there.
  const uint64_t head = __atomic_load_n(&page_->data_head, __ATOMIC_ACQUIRE);
  const uint8_t* const ring = reinterpret_cast<const uint8_t*>(page_) + host_.page_bytes();
  const RecordSummary records =
      read_records({ring, options_.ring_bytes}, ring_tail_, head, aux_end_, options_.aux_bytes);
  ring_tail_ = head;
  __atomic_store_n(&page_->data_tail, head, __ATOMIC_RELEASE);
  if (records.started) started_ = true;
  aux_end_ = records.aux_end;
  lost_records_ += records.lost_records;

  uint32_t loss = records.loss;
  const uint64_t aux_head = __atomic_load_n(&page_->aux_head, __ATOMIC_ACQUIRE);
  uint64_t left = aux_head - aux_tail_;
  if (left > options_.aux_bytes) {
    loss |= loss_flag::kBadPosition;
    aux_tail_ = aux_head;
    left = 0;
  }
  left = std::min(left, limit);
  while (left != 0) {
    const uint64_t start = aux_tail_ & (options_.aux_bytes - 1);
    const uint64_t piece = std::min<uint64_t>(left, options_.aux_bytes - start);
    take({aux_ + start, piece});
    aux_tail_ += piece;
    left -= piece;
  }
  __atomic_store_n(&page_->aux_tail, aux_tail_, __ATOMIC_RELEASE);
  return loss;
}

}  // namespace us::ipt
