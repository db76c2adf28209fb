// Perf's side: events, buffers, records.
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/check.h"
#include "hv/kvm/model/trace_model.h"

namespace us::hv::kvm::model {
namespace {

constexpr uint32_t kType = 8;
const std::map<std::string, std::string> kFiles = {
    {"type", std::to_string(kType)},
    {"format/pt", "config:0"},
    {"format/noretcomp", "config:11"},
    {"format/branch", "config:13"},
    {"format/psb_period", "config:24-27"},
    {"caps/psb_cyc", "1"},
    {"caps/psb_periods", "3f"},
    {"caps/topa_multiple_entries", "1"},
    {"caps/payloads_lip", "1"},
    {"nr_addr_filters", "2"},
};

}  // namespace

std::optional<std::string> TraceModel::read_file(const std::string& path) {
  constexpr std::string_view kFolder = "/sys/bus/event_source/devices/intel_pt/";
  if (!options_.there || !path.starts_with(kFolder)) return std::nullopt;
  const std::string name = path.substr(kFolder.size());
  if (const auto at = options_.files.find(name); at != options_.files.end()) {
    if (at->second.empty()) return std::nullopt;
    return at->second;
  }
  const auto at = kFiles.find(name);
  return at == kFiles.end() ? std::nullopt : std::optional(at->second);
}

int TraceModel::open(const perf_event_attr& attr, pid_t) {
  opened.push_back(attr);
  if (options_.open_error != 0) return -options_.open_error;
  if (attr.type != kType) return -ENOENT;
  if (!events_.empty()) return -EBUSY;  // one for a thread
  Event& e = events_[next_fd_];
  e.attr = attr;
  e.enabled = attr.disabled == 0;
  return next_fd_++;
}

void TraceModel::close(int fd) {
  const std::lock_guard lock(wake_);
  if (current_ == &events_.at(fd)) current_ = nullptr;
  events_.erase(fd);
}

int TraceModel::control(int fd, unsigned long request) {
  US_CHECK(!inside_, "an ioctl of a thread that is in the guest");
  Event& e = events_.at(fd);
  switch (request) {
    case PERF_EVENT_IOC_ENABLE:
      if (e.enabled || e.error) return 0;
      e.enabled = true;
      guest_only_ = e.attr.exclude_kernel != 0 && e.attr.exclude_user != 0;
      current_ = &e;
      if (!std::exchange(e.started, true)) {
        record(e, PERF_RECORD_ITRACE_START, {uint64_t{4711} << 32 | 4711});
        last_ip_ = last_in_ = 0;
        mode_ = ipt::kExecLong;
        writer_in_guest_ = false;
        if (writer_ != nullptr) writer_->psb_at_enable();
        if (!guest_only_) host_psb();
      }
      e.full = false;
      start_in_host();
      if (at_next_enable) std::exchange(at_next_enable, nullptr)();
      return 0;
    case PERF_EVENT_IOC_DISABLE:
      if (!e.enabled) return 0;
      stop_in_host();
      publish(e);
      e.enabled = false;
      current_ = nullptr;
      return 0;
    default: return -ENOTTY;
  }
}

ssize_t TraceModel::read(int fd, void* out, size_t size) {
  if (events_.at(fd).error) return 0;
  if (size < sizeof(uint64_t)) return -ENOSPC;
  std::memset(out, 0, sizeof(uint64_t));
  return sizeof(uint64_t);
}

void TraceModel::take_hardware() {
  for (auto& [fd, e] : events_) {
    e.error = true;
    e.enabled = false;
  }
  current_ = nullptr;
}

void* TraceModel::map(int fd, size_t bytes, uint64_t offset, int& error) {
  Event& e = events_.at(fd);
  if (offset == 0) {
    error = -options_.ring_error;
    if (options_.ring_error != 0) return nullptr;
    e.control.assign(bytes / sizeof(uint64_t), 0);
    ++mappings_;
    return e.control.data();
  }
  error = e.control.empty() || e.page().aux_offset != offset || e.page().aux_size != bytes
              ? -EINVAL
              : -options_.aux_error;
  if (error != 0) return nullptr;
  e.aux.reset(static_cast<uint8_t*>(std::calloc(bytes, 1)));
  e.aux_bytes = bytes;
  ++mappings_;
  return e.aux.get();
}

void TraceModel::unmap(void*, size_t) { --mappings_; }

int TraceModel::wait(int, int timeout_ms) {
  std::unique_lock lock(wake_);
  const bool there =
      woken_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return readable_; });
  readable_ = false;
  return there ? 1 : 0;
}

// Into the buffer, as far as there is room; regions that are full are published as they fill.
void TraceModel::put(ByteSpan bytes) {
  if (current_ == nullptr) return;
  Event& e = *current_;
  US_CHECK(e.aux != nullptr, "an event without a buffer traces nothing");
  for (const uint8_t byte : bytes) {
    if (e.full) return;
    const uint64_t tail = __atomic_load_n(&e.page().aux_tail, __ATOMIC_ACQUIRE);
    if (e.written - tail == e.aux_bytes) {
      e.full = true;
      ++truncations;
      flags_ |= PERF_AUX_FLAG_TRUNCATED;
      publish(e);
      return;
    }
    e.aux.get()[e.written & (e.aux_bytes - 1)] = byte;
    ++e.written;
    if (e.attr.aux_watermark != 0 && e.written - e.published >= e.attr.aux_watermark) publish(e);
  }
}

void TraceModel::publish(Event& e) {
  const uint64_t flags = std::exchange(flags_, 0);
  const uint64_t size = e.written - e.published;
  if (const uint64_t lost = std::exchange(lost_, 0); lost != 0) {
    record(e, PERF_RECORD_LOST, {1, lost});
  } else if (size != 0 || flags != 0) {
    record(e, PERF_RECORD_AUX, {e.published, size, flags});
  }
  if (std::exchange(throttle_, false)) record(e, PERF_RECORD_THROTTLE, {0, 1, 1});
  if (std::exchange(garble_, false)) {
    record(e, PERF_RECORD_AUX, {});
    auto* ring = reinterpret_cast<uint8_t*>(e.control.data()) + page_bytes();
    const uint64_t at = e.page().data_head - sizeof(perf_event_header);
    const uint64_t mask = e.control.size() * sizeof(uint64_t) - page_bytes() - 1;
    const uint16_t size_of_nothing = 4;
    std::memcpy(ring + (at & mask) + 6, &size_of_nothing, sizeof size_of_nothing);
  }
  e.published = e.written;
  const uint64_t far = std::exchange(skip_head_, false) ? 2 * e.aux_bytes : 0;
  __atomic_store_n(&e.page().aux_head, e.published + far, __ATOMIC_RELEASE);
  const std::lock_guard lock(wake_);
  readable_ = true;
  woken_.notify_all();
}

void TraceModel::record(Event& e, uint32_t type, std::initializer_list<uint64_t> words) {
  perf_event_header header{};
  header.type = type;
  header.size = static_cast<uint16_t>(sizeof header + words.size() * sizeof(uint64_t));
  auto* ring = reinterpret_cast<uint8_t*>(e.control.data()) + page_bytes();
  const uint64_t bytes = e.control.size() * sizeof(uint64_t) - page_bytes();
  uint64_t head = e.page().data_head;
  const uint64_t tail = __atomic_load_n(&e.page().data_tail, __ATOMIC_ACQUIRE);
  if (head - tail + header.size > bytes) {
    lost_ = 1;  // told as soon as there is room
    return;
  }
  const auto put_word = [&](const void* word) {
    std::memcpy(ring + (head & (bytes - 1)), word, sizeof(uint64_t));
    head += sizeof(uint64_t);
  };
  put_word(&header);
  for (const uint64_t word : words) put_word(&word);
  __atomic_store_n(&e.page().data_head, head, __ATOMIC_RELEASE);
}

}  // namespace us::hv::kvm::model
