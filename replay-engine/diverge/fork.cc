#include "replay-engine/diverge/fork.h"

namespace us::replay {
namespace {

std::vector<PathStep> follow(Walker& walker) {
  std::vector<PathStep> steps;
  for (size_t i = 0; i < kPathAfter; ++i) {
    PathStep step{.point = walker.machine().point()};
    step.code = disassemble(walker.machine(), step.point.rip);
    const WalkStop stop = walker.step();
    step.event = walker.machine().point().instructions == step.point.instructions &&
                 walker.machine().point() != step.point;
    steps.push_back(std::move(step));
    if (stop != WalkStop::kStepped) break;
  }
  return steps;
}

ForkKind kind_of(const Fork& fork, bool same_code) {
  if (fork.taken_a || fork.taken_b) return ForkKind::kEvent;
  if (!same_code) return ForkKind::kOther;
  switch (fork.code.branch) {
    case BranchKind::kConditional: return ForkKind::kConditional;
    case BranchKind::kIndirect:
    case BranchKind::kFar: return ForkKind::kIndirect;
    default: return ForkKind::kOther;
  }
}

}  // namespace

const char* name_of(ForkKind kind) {
  switch (kind) {
    case ForkKind::kConditional: return "conditional";
    case ForkKind::kIndirect: return "indirect";
    case ForkKind::kEvent: return "event";
    case ForkKind::kOther: return "other";
  }
  return "other";
}

Fork fork_here(const hv::ExecutionPoint& before, Walker& a, Walker& b, const PathRing& path) {
  const hv::ExecutionPoint after_a = a.machine().point(), after_b = b.machine().point();
  Fork fork{
      .ordinal = before.branches.value, .at = before, .to_a = after_a.rip, .to_b = after_b.rip};
  fork.code = disassemble(a.machine(), before.rip);
  fork.taken_a = after_a.instructions == before.instructions && after_a != before;
  fork.taken_b = after_b.instructions == before.instructions && after_b != before;
  fork.kind = kind_of(fork, fork.code.bytes == disassemble(b.machine(), before.rip).bytes);
  if (fork.kind == ForkKind::kConditional) {
    fork.ordinal = after_a.branches.value;
    fork.taken_a = after_a.rip == fork.code.target;
    fork.taken_b = after_b.rip == fork.code.target;
  }
  fork.before.assign(path.steps().begin(), path.steps().end());
  for (PathStep& step : fork.before) step.code = disassemble(a.machine(), step.point.rip);
  fork.after_a = follow(a);
  fork.after_b = follow(b);
  return fork;
}

}  // namespace us::replay
