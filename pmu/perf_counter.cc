#include "pmu/perf_counter.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>

namespace us::pmu {
namespace {

// What read(2) returns with both times asked for. perf_event_open(2), "Reading results".
struct Reading {
  uint64_t value;
  uint64_t enabled;
  uint64_t running;
};

// Tries of the seqlock before the system call is used; a writer holds it for nanoseconds.
constexpr int kFastTries = 16;

std::string mend_for(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
      return "set kernel.perf_event_paranoid to 1 or less, or give the program CAP_PERFMON";
    case ENOENT:
    case ENODEV:
    case EOPNOTSUPP:
      return "run on bare metal, on a processor with a PMU the kernel drives; hypervisors mostly "
             "hide it";
    case EBUSY: return "end who else holds the PMU (`perf`, oprofile, the NMI watchdog)";
    case EMFILE: return "raise the limit of open files (`ulimit -n`)";
    default: return "see perf_event_open(2) for this error";
  }
}

UserError refused(const EventRow& row, const char* role, const std::string& seen,
                  std::string mend) {
  return {.id = "PMU-018",
          .exit_code = ExitCode::kHostCannot,
          .what = fmt::format("perf gives no {} counter for {}'s branch event", role, row.name),
          .seen = seen,
          .needed = "two pinned guest-only counters of conditional branches on the vCPU's thread",
          .mend = std::move(mend)};
}

}  // namespace

Result<const EventRow*> usable_event(const CpuId& cpu) {
  const EventRow* row = find_event(cpu);
  UserError error{.id = "PMU-017",
                  .exit_code = ExitCode::kHostCannot,
                  .what = "this processor's branch counter cannot drive a machine",
                  .seen = fmt::format("{} family {:#x} model {:#x} stepping {}", cpu.vendor,
                                      cpu.family, cpu.model, cpu.stepping),
                  .needed = "an Intel Xeon from Haswell to Granite Rapids",
                  .mend = "use the software processor (`--backend soft`), or another host"};
  if (row == nullptr) {
    error.seen += ", which is not in the table of events";
    return error;
  }
  if (!row->skid_bounded) {
    // Guest-only switching inside the VM transition is Intel's PERF_GLOBAL_CTRL control; and rr
    // found no bound for Zen's skid.
    error.seen += fmt::format(
        " ({}): its alarm has no known bound of lateness, and KVM cannot switch its counters "
        "within the transition to the guest",
        row->name);
    return error;
  }
  if (cpu.core != CoreType::kOnly) {
    error.seen += fmt::format(
        " ({}): cores of two kinds, each with a PMU of its own, count by different events",
        row->name);
    return error;
  }
  return row;
}

Result<std::unique_ptr<PerfCounter>> PerfCounter::open(PerfHost& host, const EventRow& row,
                                                       const PerfCounterOptions& options) {
  US_CHECK(options.period_min > 0, "a minimum period of 0");
  PerfCounterOptions own = options;
  if (own.thread == 0) own.thread = ::gettid();  // an owner of signals with the id 0 is nobody
  std::unique_ptr<PerfCounter> counter(new PerfCounter(host, own));
  if (Status opened = counter->open_events(row); !opened.ok()) return opened.error();
  return counter;
}

Status PerfCounter::open_events(const EventRow& row) {
  auto clock = make_event(row, EventRole::kClock, options_.scope);
  if (!clock.ok()) return clock.error();
  auto alarm = make_event(row, EventRole::kAlarm, options_.scope);
  if (!alarm.ok()) return alarm.error();
  clock->read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  for (const auto& [attr, fd, role] :
       {std::tuple{&*clock, &clock_, "clock"}, std::tuple{&*alarm, &alarm_, "alarm"}}) {
    US_CHECK(counts_only(*attr, options_.scope) && attr->pinned == 1,
             "an event that counts what it should not");
    *fd = host_.open(*attr, options_.thread);
    if (*fd < 0) return refused(row, role, std::strerror(-*fd), mend_for(-*fd));
  }
  if (const int r = host_.signal_on_overflow(alarm_, options_.signal, options_.thread); r < 0)
    return refused(row, "alarm", std::strerror(-r), mend_for(-r));
  page_ = host_.map(clock_);  // without it every read is a system call
  if (const int r = host_.control(clock_, PERF_EVENT_IOC_ENABLE, 0); r < 0)
    return refused(row, "clock", std::strerror(-r), mend_for(-r));
  // A pinned event that finds no counter goes to its error state only now.
  if (!read().ok())
    return refused(row, "clock", "the event was opened and found no counter free", mend_for(EBUSY));
  return Done{};
}

PerfCounter::~PerfCounter() {
  if (page_ != nullptr) host_.unmap(page_);
  for (const int fd : {clock_, alarm_})
    if (fd >= 0) host_.close(fd);
}

// The loop that linux/perf_event.h prescribes above `lock`. The kernel writes the page on the
// processor that this thread runs on, so only the compiler's order counts. The guest's counter
// stands still while the host runs, so one pass is nearly always enough.
std::optional<uint64_t> PerfCounter::read_fast() {
  if (page_ == nullptr) return std::nullopt;
  for (int i = 0; i < kFastTries; ++i) {
    const uint32_t before = __atomic_load_n(&page_->lock, __ATOMIC_ACQUIRE);
    const uint32_t index = page_->index;
    const uint64_t enabled = page_->time_enabled, running = page_->time_running;
    uint64_t count = static_cast<uint64_t>(page_->offset);
    const bool usable = page_->cap_user_rdpmc != 0 && index != 0 && page_->pmc_width != 0;
    if (usable) {
      const unsigned unused = 64u - std::min<unsigned>(page_->pmc_width, 64);
      const auto raw = static_cast<int64_t>(host_.rdpmc(index - 1) << unused);
      count += static_cast<uint64_t>(raw >> unused);
    }
    std::atomic_signal_fence(std::memory_order_acquire);
    if ((before & 1) != 0 || __atomic_load_n(&page_->lock, __ATOMIC_RELAXED) != before) continue;
    if (!usable || enabled != running) return std::nullopt;
    return count;
  }
  return std::nullopt;
}

Result<Branches, CounterError> PerfCounter::read() {
  if (health_.lost) return CounterError::kLost;
  if (const auto count = read_fast()) return Branches(*count);
  ++slow_reads_;
  Reading reading{};
  const ssize_t got = host_.read(clock_, &reading, sizeof reading);
  // Nothing read: the pinned event lost its counter. Times apart: it shared the counter.
  if (got != sizeof reading || reading.enabled != reading.running) {
    health_.lost = true;
    return CounterError::kLost;
  }
  return Branches(reading.value);
}

bool PerfCounter::start(uint64_t period) {
  // The order that takes effect at once. REFRESH adds to what the kernel still lets through, so an
  // allowance left by an alarm that did not fire is used up by ENABLE instead.
  const unsigned long go = allowance_ ? PERF_EVENT_IOC_ENABLE : PERF_EVENT_IOC_REFRESH;
  const struct {
    unsigned long request;
    uint64_t argument;
  } order[] = {{PERF_EVENT_IOC_DISABLE, 0},
               {PERF_EVENT_IOC_RESET, 0},
               {PERF_EVENT_IOC_PERIOD, period},
               {go, allowance_ ? uint64_t{0} : uint64_t{1}}};
  for (const auto& [request, argument] : order)
    if (host_.control(alarm_, request, argument) < 0) return false;
  allowance_ = true;
  return true;
}

Result<Done, CounterError> PerfCounter::arm(Branches now, Branches target) {
  disarm();
  if (health_.lost) return CounterError::kLost;
  if (target <= now) return CounterError::kPast;
  const uint64_t period = (target - now).value;
  if (period < options_.period_min) return CounterError::kTooClose;
  if (!start(period)) return CounterError::kUnavailable;
  ++health_.alarms_armed;
  armed_ = true;
  target_ = target.value;
  return Done{};
}

void PerfCounter::disarm() {
  if (!armed_) return;
  armed_ = false;
  host_.control(alarm_, PERF_EVENT_IOC_DISABLE, 0);
  const auto now = read();
  if (!now.ok() || now->value < target_) return;
  // It may have fired with its signal still on the way. To take the allowance for used is safe
  // either way: one too many only lets a second overflow through, and on_interrupt() disables.
  allowance_ = false;
  ++health_.alarms_missed;
}

void PerfCounter::on_interrupt() {
  if (!armed_) return;
  const auto now = read();
  if (now.ok() && now->value < target_) return;  // the late signal of an alarm before this one
  armed_ = false;
  allowance_ = false;
  host_.control(alarm_, PERF_EVENT_IOC_DISABLE, 0);
  ++health_.alarms_fired;
  if (now.ok()) health_.skid_max = std::max(health_.skid_max, now->value - target_);
}

}  // namespace us::pmu
