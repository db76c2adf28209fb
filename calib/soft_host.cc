#include "calib/soft_host.h"

#include <algorithm>

#include "base/check.h"

namespace us::calib {
namespace {

constexpr Shape kShapes[] = {Shape::kTaken, Shape::kNotTaken, Shape::kMixed, Shape::kCalls,
                             Shape::kStrings};
// 10 kHz against a processor that retires a conditional branch in five nanoseconds or so.
constexpr uint64_t kBranchesAnInterrupt = 2000;

uint64_t taken_of(Shape shape, uint64_t branches) {
  switch (shape) {
    case Shape::kTaken: return branches;
    case Shape::kNotTaken: return branches / 65;
    default: return branches / 2;
  }
}

}  // namespace

std::span<const Shape> SoftHost::shapes() const { return kShapes; }

void SoftHost::reseed(uint64_t seed) {
  retired_ = {};
  counter_ = std::make_unique<pmu::PmuModel>(
      pmu::ModelOptions{
          .skid = model_.skid, .seed = seed, .period_min = 1, .misbehaviour = model_.misbehaviour},
      [this] { return retired_; });
}

void SoftHost::retire(Shape shape, uint64_t branches) {
  retired_.conditional += branches;
  retired_.taken += taken_of(shape, branches);
}

Result<Counted> SoftHost::count(Shape shape, uint64_t branches, Disturbance disturbance) {
  const pmu::Retired before = retired_;
  const uint64_t reading_before = reading();
  uint64_t interrupts = 0;
  if (disturbance == Disturbance::kInterrupts) {
    for (uint64_t left = branches; left > 0;) {
      const uint64_t now = std::min(left, kBranchesAnInterrupt);
      retire(shape, now);
      left -= now;
      counter_->on_host_interrupt();
      ++interrupts;
    }
  } else {
    retire(shape, branches);
  }
  return Counted{.retired = {.conditional = retired_.conditional - before.conditional,
                             .taken = retired_.taken - before.taken},
                 .counted = reading() - reading_before,
                 .interrupts = interrupts};
}

Result<AlarmRun> SoftHost::alarm(Shape shape, uint64_t period, uint64_t patience) {
  const uint64_t now = reading();
  const bool armed = counter_->arm(Branches(now), Branches(now + period)).ok();
  US_CHECK(armed, "the model refuses a period of {}", period);
  const auto at = counter_->interrupt_at();
  const uint64_t last = retired_.conditional + period + patience;
  if (!at || *at > last) {
    retire(shape, period + patience);
    counter_->disarm();
    return AlarmRun{};
  }
  if (*at > retired_.conditional) retire(shape, *at - retired_.conditional);
  const uint64_t came_after = reading() - now;
  counter_->on_interrupt();
  return AlarmRun{.came_after = came_after};
}

}  // namespace us::calib
