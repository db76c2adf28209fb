#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "calib/code_runner.h"
#include "calib/smt_sibling.h"

extern "C" {
using NativeFunction = uint64_t (*)(uint64_t rounds, const uint8_t* stop, void* memory);
uint64_t us_native_taken(uint64_t, const uint8_t*, void*);
uint64_t us_native_not_taken(uint64_t, const uint8_t*, void*);
uint64_t us_native_mixed(uint64_t, const uint8_t*, void*);
uint64_t us_native_calls(uint64_t, const uint8_t*, void*);
uint64_t us_native_strings(uint64_t, const uint8_t*, void*);
uint64_t us_native_cache_misses(uint64_t, const uint8_t*, void*);
uint64_t us_native_system_calls(uint64_t, const uint8_t*, void*);
uint64_t us_native_page_faults(uint64_t, const uint8_t*, void*);
void us_native_tick(int);
void us_native_steps(uint64_t);
void us_native_breaks(uint64_t);
extern volatile uint64_t us_native_ticks;
}

namespace us::calib {
namespace {

// In the order of Shape. Each round's two own branches are counted: the one at its end is taken but
// for the last round's, which is one of too many to matter to any share.
struct Code {
  NativeFunction function;
  uint64_t taken, not_taken;
};
constexpr Code kCodes[kShapeCount] = {
    {us_native_taken, 200 + 1, 1},     {us_native_not_taken, 1, 200 + 1},
    {us_native_mixed, 50 + 1, 50 + 1}, {us_native_calls, 10 + 1, 10 + 1},
    {us_native_strings, 4 + 1, 4 + 1}, {us_native_cache_misses, 4 + 1, 4 + 1},
    {us_native_system_calls, 2, 2},    {us_native_page_faults, 2, 2},
};
constexpr Shape kShapes[] = {Shape::kTaken,       Shape::kNotTaken,  Shape::kMixed,
                             Shape::kCalls,       Shape::kStrings,   Shape::kCacheMisses,
                             Shape::kSystemCalls, Shape::kPageFaults};

// Where a shape's code ends: where the next one's begins.
size_t bytes_of(Shape shape) {
  const size_t next = static_cast<size_t>(shape) + 1;
  const auto begin = reinterpret_cast<uintptr_t>(kCodes[next - 1].function);
  const auto end = next < kShapeCount ? reinterpret_cast<uintptr_t>(kCodes[next].function)
                                      : reinterpret_cast<uintptr_t>(&us_native_tick);
  return end - begin;
}

constexpr size_t kPage = 4096;
constexpr size_t kChainBytes = 64u << 20;  // beyond every cache of its kind
constexpr long kTickNs = 50'000;           // 20 kHz

std::function<void()>* g_alarm = nullptr;  // the one runner's

void alarm_came(int) {
  const int kept = errno;
  if (g_alarm != nullptr && *g_alarm) (*g_alarm)();
  errno = kept;
}

void trapped(int) {}

UserError cannot(const char* what, int error) {
  return {.id = "CAL-007",
          .exit_code = ExitCode::kHostCannot,
          .what = fmt::format("cannot {} for measuring", what),
          .seen = std::strerror(error),
          .needed = "a host that lets a program have timers, signals and 64 MiB",
          .mend = "raise the limit that the message means (`ulimit -a`)"};
}

class Mapping {
 public:
  explicit Mapping(size_t bytes)
      : bytes_(bytes),
        at_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ~Mapping() {
    if (ok()) ::munmap(at_, bytes_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  bool ok() const { return at_ != MAP_FAILED; }
  void* at() const { return at_; }

 private:
  size_t bytes_;
  void* at_;
};

class NativeCode final : public CodeRunner {
 public:
  NativeCode() : page_(2 * kPage), chain_(kChainBytes) {}
  ~NativeCode() override {
    if (has_timer_) ::timer_delete(timer_);
    g_alarm = nullptr;
  }

  Status start() {
    if (!page_.ok() || !chain_.ok()) return cannot("get memory", errno);
    link_chain();
    cpu_set_t here, allowed;
    CPU_ZERO(&allowed);
    ::sched_getaffinity(0, sizeof allowed, &allowed);
    const int cpu = std::max(::sched_getcpu(), 0);
    sibling_ = sibling_of(cpu, allowed);
    CPU_ZERO(&here);
    CPU_SET(static_cast<size_t>(cpu), &here);
    ::sched_setaffinity(0, sizeof here, &here);  // as well as may be: hybrids have two counters
    g_alarm = &alarm_;
    for (const auto& [signal, handler] :
         {std::pair{alarm_signal(), &alarm_came}, std::pair{tick_signal(), &us_native_tick},
          std::pair{SIGTRAP, &trapped}}) {
      struct sigaction action {};
      action.sa_handler = handler;
      action.sa_flags = SA_RESTART;
      if (::sigaction(signal, &action, nullptr) != 0) return cannot("take a signal", errno);
    }
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = tick_signal();
    event._sigev_un._tid = ::gettid();
    if (::timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0) return cannot("make a timer", errno);
    has_timer_ = true;
    return Done{};
  }

  std::span<const Shape> shapes() const override { return kShapes; }
  pmu::Retired round(Shape shape) const override { return native_shape(shape).round; }
  pmu::Retired stop() const override { return {.conditional = 1, .taken = 1}; }
  uint64_t run(Shape shape, uint64_t rounds, const std::atomic<uint8_t>& stop) override {
    static_assert(sizeof stop == 1 && std::atomic<uint8_t>::is_always_lock_free);
    void* memory = shape == Shape::kCacheMisses ? chain_.at() : page_.at();
    return kCodes[static_cast<size_t>(shape)].function(
        rounds, reinterpret_cast<const uint8_t*>(&stop), memory);
  }

  int alarm_signal() const override { return SIGRTMIN + 4; }
  void on_alarm(std::function<void()> handler) override { alarm_ = std::move(handler); }
  Status interrupts(bool on) override {
    itimerspec every{};
    if (on) every.it_interval.tv_nsec = every.it_value.tv_nsec = kTickNs;
    if (::timer_settime(timer_, 0, &every, nullptr) != 0) return cannot("set a timer", errno);
    return Done{};
  }
  uint64_t interrupts_seen() const override { return us_native_ticks; }

  Status busy_sibling(bool busy) override {
    if (!busy) {
      beside_.reset();
      return Done{};
    }
    if (!beside_) beside_ = BusyThread::start(sibling_.value());
    if (!beside_) return cannot("use the core's other thread", EPERM);
    return Done{};
  }
  std::optional<std::string> no_sibling() const override {
    return sibling_.ok() ? std::nullopt : std::optional(sibling_.error());
  }

  std::optional<double> step_ns() override {
    constexpr uint64_t kRounds = 2000;
    return timed([] { us_native_steps(kRounds); }) / (8 * kRounds);
  }
  std::optional<double> break_ns() override {
    constexpr uint64_t kBreaks = 10'000;
    return timed([] { us_native_breaks(kBreaks); }) / kBreaks;
  }

 private:
  static int tick_signal() { return SIGRTMIN + 5; }

  template <class F>
  static double timed(F f) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin)
        .count();
  }

  // One cycle through every cache line, in an order that no prefetcher foresees: a full-period
  // linear congruential generator steps from line to line (Hull and Dobell 1962).
  void link_chain() {
    constexpr uint64_t kLine = 64, kLines = kChainBytes / kLine;
    auto* base = static_cast<uint8_t*>(chain_.at());
    uint64_t line = 0;
    for (uint64_t i = 0; i < kLines; ++i) {
      const uint64_t next = (line * 1664525 + 1013904223) % kLines;
      *reinterpret_cast<void**>(base + line * kLine) = base + next * kLine;
      line = next;
    }
  }

  Mapping page_, chain_;
  std::function<void()> alarm_;
  Result<int, std::string> sibling_ = std::string("not looked for");
  std::unique_ptr<BusyThread> beside_;
  timer_t timer_{};
  bool has_timer_ = false;
};

}  // namespace

NativeShape native_shape(Shape shape) {
  const Code& code = kCodes[static_cast<size_t>(shape)];
  return {.code = reinterpret_cast<const uint8_t*>(code.function),
          .bytes = bytes_of(shape),
          .round = {.conditional = code.taken + code.not_taken, .taken = code.taken},
          .calls_kernel = shape == Shape::kSystemCalls || shape == Shape::kPageFaults};
}

Result<std::unique_ptr<CodeRunner>> native_code() {
  auto code = std::make_unique<NativeCode>();
  if (Status s = code->start(); !s.ok()) return s.error();
  return std::unique_ptr<CodeRunner>(std::move(code));
}

}  // namespace us::calib
