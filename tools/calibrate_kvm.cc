// The kvm backend of `understudy calibrate`: a guest on whatever host the verbs work on.
#include "calib/kvm_experiment_host.h"
#include "tools/calibrate.h"
#include "tools/host.h"

namespace us::tools {

Result<MeasuredHost> open_kvm(const CalibrateOptions& options) {
  auto seams = std::make_shared<HostSeams>(open_host());
  auto host = calib::KvmExperimentHost::open(
      seams->host(), {.by_steps = options.guest.by_steps, .cpu = options.guest.cpu});
  if (!host.ok()) return host.error();
  return MeasuredHost{
      .keeps = std::move(seams), .host = std::move(host).value(), .model = std::nullopt};
}

}  // namespace us::tools
