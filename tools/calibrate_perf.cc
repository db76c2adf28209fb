// The perf backend of `understudy calibrate`: everything it needs, held together.
#include "calib/perf_experiment_host.h"
#include "tools/calibrate.h"

namespace us::tools {
namespace {

// Passes on to a host whose counter and code it owns.
class OwningPerfHost final : public calib::ExperimentHost {
 public:
  static Result<std::unique_ptr<calib::ExperimentHost>> open(const pmu::EventRow& row) {
    auto code = calib::native_code();
    if (!code.ok()) return code.error();
    auto owner = std::make_unique<OwningPerfHost>();
    owner->perf_ = pmu::real_perf_host();
    owner->code_ = std::move(code).value();
    auto host = calib::PerfExperimentHost::open(*owner->perf_, row, *owner->code_);
    if (!host.ok()) return host.error();
    owner->host_ = std::move(host).value();
    return std::unique_ptr<calib::ExperimentHost>(std::move(owner));
  }

  std::string_view backend() const override { return host_->backend(); }
  std::string_view event() const override { return host_->event(); }
  uint64_t event_config() const override { return host_->event_config(); }
  pmu::HostIdentity identity() const override { return host_->identity(); }
  std::span<const calib::Shape> shapes() const override { return host_->shapes(); }
  void reseed(uint64_t seed) override { host_->reseed(seed); }
  Result<calib::Counted> count(calib::Shape shape, uint64_t branches,
                               calib::Disturbance disturbance) override {
    return host_->count(shape, branches, disturbance);
  }
  Result<calib::AlarmRun> alarm(calib::Shape shape, uint64_t period, uint64_t patience) override {
    return host_->alarm(shape, period, patience);
  }
  void pause(uint64_t branches) override { host_->pause(branches); }
  Status disturb(calib::Disturbance disturbance) override { return host_->disturb(disturbance); }
  std::optional<std::string> why_not(calib::Disturbance disturbance) const override {
    return host_->why_not(disturbance);
  }
  std::optional<calib::TscSample> tsc() override { return host_->tsc(); }
  calib::CostFigures costs() override { return host_->costs(); }

 private:
  // Gone in the opposite order: the host ends before its counter's perf and its code do.
  std::unique_ptr<pmu::PerfHost> perf_;
  std::unique_ptr<calib::CodeRunner> code_;
  std::unique_ptr<calib::PerfExperimentHost> host_;
};

}  // namespace

Result<MeasuredHost> open_perf() {
  const auto row = pmu::usable_event(pmu::this_cpu());
  if (!row.ok()) return row.error();
  auto host = OwningPerfHost::open(**row);
  if (!host.ok()) return host.error();
  return MeasuredHost{.host = std::move(host).value(), .model = std::nullopt};
}

}  // namespace us::tools
