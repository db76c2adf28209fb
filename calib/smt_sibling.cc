#include "calib/smt_sibling.h"

#include <charconv>
#include <fmt/format.h>
#include <fstream>
#include <vector>

namespace us::calib {
namespace {

// "0,4" and "2-3,7"; nothing: no such list.
std::optional<std::vector<int>> parse_list(std::string_view text) {
  std::vector<int> cpus;
  const auto number = [&text]() -> std::optional<int> {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || value < 0 || value >= CPU_SETSIZE) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return value;
  };
  const auto skip = [&text](char c) {
    if (text.empty() || text.front() != c) return false;
    text.remove_prefix(1);
    return true;
  };
  do {
    const auto first = number();
    if (!first) return std::nullopt;
    const auto last = skip('-') ? number() : first;
    if (!last || *last < *first) return std::nullopt;
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
  } while (skip(','));
  skip('\n');
  if (!text.empty()) return std::nullopt;
  return cpus;
}

}  // namespace

Result<int, std::string> other_of(std::string_view list, int cpu, const cpu_set_t& allowed) {
  const auto cpus = parse_list(list);
  if (!cpus) return fmt::format("the kernel does not say what shares processor {}'s core", cpu);
  bool any = false;
  for (const int other : *cpus) {
    if (other == cpu) continue;
    any = true;
    if (CPU_ISSET(static_cast<size_t>(other), &allowed)) return other;
  }
  if (!any) return fmt::format("processor {} has its core to itself", cpu);
  return fmt::format("what shares processor {}'s core may not be used by this process", cpu);
}

Result<int, std::string> sibling_of(int cpu, const cpu_set_t& allowed) {
  std::ifstream file(
      fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
  std::string list;
  std::getline(file, list);
  return other_of(list, cpu, allowed);
}

std::unique_ptr<BusyThread> BusyThread::start(int cpu) {
  std::unique_ptr<BusyThread> busy(new BusyThread(cpu));
  busy->thread_ = std::thread([raw = busy.get()] { raw->run(); });
  busy->placed_.wait(0);
  return busy->placed_ == 1 ? std::move(busy) : nullptr;
}

BusyThread::~BusyThread() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void BusyThread::run() {
  cpu_set_t there;
  CPU_ZERO(&there);
  CPU_SET(static_cast<size_t>(cpu_), &there);
  placed_ = ::sched_setaffinity(0, sizeof there, &there) == 0 ? 1 : -1;
  placed_.notify_all();
  std::vector<uint64_t> memory(4096);  // as much as the first cache holds
  uint64_t state = 1;
  while (placed_ == 1 && !stop_.load(std::memory_order_relaxed)) {
    for (int i = 0; i < 1000; ++i) {
      state = state * 6364136223846793005 + 1442695040888963407;
      uint64_t& word = memory[state >> 52];
      if ((state >> 40 & 1) != 0) word += state;
      state ^= word;
    }
    rounds_.fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace us::calib
