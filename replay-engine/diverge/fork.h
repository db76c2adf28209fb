// Describing the place where two paths part.
#pragma once

#include <deque>

#include "replay-engine/diverge/report.h"
#include "replay-engine/diverge/walker.h"

namespace us::replay {

constexpr size_t kPathBefore = 12, kPathAfter = 12;  // steps shown

// The last steps both sides took together.
class PathRing {
 public:
  void add(const hv::ExecutionPoint& before, const hv::ExecutionPoint& after) {
    steps_.push_back({.point = before, .event = before.instructions == after.instructions});
    if (steps_.size() > kPathBefore) steps_.pop_front();
  }
  const std::deque<PathStep>& steps() const { return steps_; }

 private:
  std::deque<PathStep> steps_;
};

// Both sides stood at `before`, made one step, and are now apart. Steps both a little further.
Fork fork_here(const hv::ExecutionPoint& before, Walker& a, Walker& b, const PathRing& path);

}  // namespace us::replay
