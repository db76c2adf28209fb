#include "hv/core/executor.h"

#include <atomic>
#include <cstdlib>

namespace us::hv {
namespace {

std::atomic<Executor>& chosen() {
  static std::atomic<Executor> executor = [] {
    const char* const name = std::getenv("UNDERSTUDY_EXECUTOR");
    return executor_named(name != nullptr ? name : "").value_or(Executor::kInterpret);
  }();
  return executor;
}

std::atomic<uint32_t>& runs_before() {
  constexpr uint32_t kUsual = 48;
  static std::atomic<uint32_t> runs = [] {
    const char* const text = std::getenv("UNDERSTUDY_TRANSLATE_AFTER");
    const unsigned long value = text != nullptr ? std::strtoul(text, nullptr, 10) : 0;
    return value == 0 || value > 1'000'000 ? kUsual : static_cast<uint32_t>(value);
  }();
  return runs;
}

}  // namespace

const char* name_of(Executor executor) {
  return executor == Executor::kTranslate ? "translate" : "interpret";
}

std::optional<Executor> executor_named(std::string_view name) {
  for (const Executor executor : {Executor::kInterpret, Executor::kTranslate})
    if (name == name_of(executor)) return executor;
  return std::nullopt;
}

Executor default_executor() { return chosen(); }
void set_default_executor(Executor executor) { chosen() = executor; }

uint32_t translate_after() { return runs_before(); }
void set_translate_after(uint32_t runs) { runs_before() = runs; }

}  // namespace us::hv
