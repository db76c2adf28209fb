// The modelled counter as a host to measure. Its code only retires: no processor runs, so millions
// of alarms take seconds, and the truth is known.
#pragma once

#include <memory>

#include "calib/experiment_host.h"

namespace us::calib {

class SoftHost final : public ExperimentHost {
 public:
  explicit SoftHost(const pmu::ModelSettings& model) : model_(model) { reseed(model.seed); }

  std::string_view backend() const override { return "soft"; }
  std::string_view event() const override { return "model"; }
  uint64_t event_config() const override { return 0; }
  pmu::HostIdentity identity() const override { return {.cpu = "software processor"}; }
  std::span<const Shape> shapes() const override;

  void reseed(uint64_t seed) override;
  Result<Counted> count(Shape shape, uint64_t branches, Disturbance disturbance) override;
  Result<AlarmRun> alarm(Shape shape, uint64_t period, uint64_t patience) override;
  void pause(uint64_t branches) override { retire(Shape::kMixed, branches); }
  std::optional<std::string> why_not(Disturbance disturbance) const override {
    if (disturbance == Disturbance::kNone) return std::nullopt;
    return std::string("the modelled counter's skid does not depend on it");
  }
  // The model reads and arms in no time; stepping is the machine's, see landing_cost.h.
  CostFigures costs() override { return {}; }

 private:
  void retire(Shape shape, uint64_t branches);
  uint64_t reading() { return counter_->read()->value; }

  pmu::ModelSettings model_;
  pmu::Retired retired_;
  std::unique_ptr<pmu::PmuModel> counter_;
};

}  // namespace us::calib
