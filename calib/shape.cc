#include "calib/experiment_host.h"

namespace us::calib {
namespace {

constexpr std::string_view kNames[kShapeCount] = {"taken",        "not-taken",  "mixed",
                                                  "calls",        "strings",    "cache-misses",
                                                  "system-calls", "page-faults"};

}  // namespace

std::string_view name_of(Shape shape) { return kNames[static_cast<size_t>(shape)]; }

std::optional<Shape> shape_by_name(std::string_view name) {
  for (size_t i = 0; i < kShapeCount; ++i)
    if (kNames[i] == name) return static_cast<Shape>(i);
  return std::nullopt;
}

std::string_view name_of(Disturbance disturbance) {
  switch (disturbance) {
    case Disturbance::kNone: break;
    case Disturbance::kInterrupts: return "interrupts";
    case Disturbance::kBusySibling: return "busy-sibling";
  }
  return "quiet";
}

}  // namespace us::calib
