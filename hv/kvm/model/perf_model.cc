#include "hv/kvm/model/perf_model.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace us::hv::kvm::model {
namespace {

constexpr unsigned kWidth = 48;
constexpr uint64_t kMask = (uint64_t{1} << kWidth) - 1;
// As the kernel starts a counter: below the wrap of its bits, seen as a negative number.
constexpr uint64_t kBase = uint64_t{0} - (uint64_t{1} << 40);
constexpr uint64_t kNever = uint64_t{1} << 60;  // what the backend opens its alarm with

}  // namespace

uint64_t PerfModel::count_of(const Event& e) const {
  return e.count + (e.enabled && !e.error ? retired() - e.since : 0);
}

void PerfModel::publish(Event& e) {
  e.page.lock += 2;
  e.page.cap_user_rdpmc = options_.rdpmc;
  e.page.pmc_width = kWidth;
  e.page.index = e.error || !e.mapped ? 0 : 1;
  e.page.offset = static_cast<int64_t>(uint64_t{1} << 40);
  e.page.time_enabled = e.page.time_running = 1000;
}

void PerfModel::plan(Event& e) {
  e.due.reset();
  if (!e.sampling || !e.enabled || e.error || e.period >= kNever) return;
  e.due = e.since + e.period + options_.skid.draw(random_);
}

std::optional<uint64_t> PerfModel::interrupt_at() const {
  std::optional<uint64_t> first;
  for (const auto& [fd, e] : events_)
    if (e.due && (!first || *e.due < *first)) first = e.due;
  return first;
}

void PerfModel::interrupt() {
  for (auto& [fd, e] : events_) {
    if (!e.due || *e.due > retired()) continue;
    e.due.reset();
    if (options_.throttle_one_in != 0 && random_.next() % options_.throttle_one_in == 0) {
      ++throttled;
      continue;
    }
    ++overflows;
    if (options_.overcount_one_in != 0 && random_.next() % options_.overcount_one_in == 0)
      ++leaked_;
    if (e.signal != 0) send_(e.signal);
    if (e.limit > 0 && --e.limit == 0) {
      e.count = count_of(e);
      e.enabled = false;
    }
  }
}

void PerfModel::take_counters() {
  for (auto& [fd, e] : events_) {
    e.error = true;
    publish(e);
  }
}

int PerfModel::open(const perf_event_attr& attr, pid_t) {
  opened.push_back(attr);
  if (options_.open_error != 0) return -options_.open_error;
  Event& e = events_[next_fd_];
  e.sampling = attr.sample_period != 0;
  e.period = attr.sample_period;
  e.enabled = attr.disabled == 0;
  e.since = retired();
  e.error = static_cast<int>(events_.size()) > options_.counters_free;
  return next_fd_++;
}

int PerfModel::control(int fd, unsigned long request, uint64_t argument) {
  Event& e = events_.at(fd);
  e.count = count_of(e);
  e.since = retired();
  switch (request) {
    case PERF_EVENT_IOC_ENABLE: e.enabled = true; break;
    case PERF_EVENT_IOC_DISABLE: e.enabled = false; break;
    case PERF_EVENT_IOC_REFRESH:
      e.limit += static_cast<int>(argument);
      e.enabled = true;
      break;
    case PERF_EVENT_IOC_RESET: e.count = 0; break;
    case PERF_EVENT_IOC_PERIOD:
      if (!e.sampling) return -EINVAL;
      e.period = argument;
      break;
    default: return -ENOTTY;
  }
  plan(e);
  publish(e);
  return 0;
}

ssize_t PerfModel::read(int fd, void* out, size_t size) {
  const Event& e = events_.at(fd);
  if (e.error) return 0;
  const uint64_t values[3] = {count_of(e), 1000, 1000};
  if (size < sizeof values) return -ENOSPC;
  std::memcpy(out, values, sizeof values);
  return sizeof values;
}

int PerfModel::signal_on_overflow(int fd, int signal, pid_t) {
  events_.at(fd).signal = signal;
  return 0;
}

const perf_event_mmap_page* PerfModel::map(int fd) {
  Event& e = events_.at(fd);
  e.mapped = true;
  publish(e);
  return &e.page;
}

uint64_t PerfModel::rdpmc(uint32_t index) {
  for (auto& [fd, e] : events_)
    if (e.page.index == index + 1) return (kBase + count_of(e)) & kMask;
  return 0;
}

}  // namespace us::hv::kvm::model
