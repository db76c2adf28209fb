#include "hv/core/executor.h"

#include <atomic>
#include <cstdlib>

namespace us::hv {
namespace {

// The manuals leave AF undefined after logic; every processor so far clears it, as the interpreter
// does, and then logic needs no correction. AF is bit 4 of what LAHF loads.
bool logic_clears_adjust() {
  constexpr unsigned kAdjust = 1u << 4;
  uint16_t after_and, after_or, after_xor, after_test;
  constexpr uint32_t kDirty = 0xf;  // plus one sets AF
#define US_FLAGS_AFTER(out, instruction)                                                        \
  asm volatile("mov %1, %%ecx\n add $1, %%ecx\n" instruction " %1, %%ecx\n lahf\n mov %%ax, %0" \
               : "=r"(out)                                                                      \
               : "r"(kDirty)                                                                    \
               : "eax", "ecx", "cc")
  US_FLAGS_AFTER(after_and, "and");
  US_FLAGS_AFTER(after_or, "or");
  US_FLAGS_AFTER(after_xor, "xor");
  US_FLAGS_AFTER(after_test, "test");
#undef US_FLAGS_AFTER
  return ((after_and | after_or | after_xor | after_test) & kAdjust << 8) == 0;
}

std::atomic<Executor>& chosen() {
  static std::atomic<Executor> executor = [] {
    const char* const name = std::getenv("UNDERSTUDY_EXECUTOR");
    return executor_named(name != nullptr ? name : "").value_or(Executor::kTranslate);
  }();
  return executor;
}

std::atomic<uint32_t>& runs_before() {
  // Sooner, and boot translates too much that hardly runs again; later, and short programs suffer.
  constexpr uint32_t kUsual = 400;
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

bool host_fits_translation() {
  static const bool fits = logic_clears_adjust();
  return fits;
}

Executor default_executor() {
  return host_fits_translation() ? chosen().load() : Executor::kInterpret;
}
void set_default_executor(Executor executor) { chosen() = executor; }

uint32_t translate_after() { return runs_before(); }
void set_translate_after(uint32_t runs) { runs_before() = runs; }

}  // namespace us::hv
