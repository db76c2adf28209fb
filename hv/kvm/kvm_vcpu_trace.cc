// The guest's trace. The processor writes it while the guest runs (ipt/capture/); what the guest is
// taken through by software, between an exit and the next entry, is told to the sink here, at the
// place where it happened: else two runs that were left at different places would differ.
#include "base/check.h"
#include "hv/cpu/trace.h"
#include "hv/kvm/kvm_vcpu.h"

namespace us::hv::kvm {

// A host without it is no error: caps() say so.
void KvmVcpu::find_trace() {
  if (options_.trace == nullptr) return;
  if (auto pmu = ipt::find_trace_pmu(*options_.trace); pmu.ok()) trace_pmu_ = *pmu;
}

// Where the guest stands, as the trace's packets name places.
uint64_t KvmVcpu::trace_place() const {
  fetch(kRegs | kSregs);
  const bool linear = trace_pmu_ && trace_pmu_->linear_addresses;
  return linear ? linear_ip(shadow_, shadow_.rip) : shadow_.rip;
}

Result<ipt::TraceSetup> KvmVcpu::start_trace(const TraceRequest& request) {
  US_CHECK(capture_ == nullptr && request.sink != nullptr, "tracing needs a sink, once");
  US_CHECK(trace_pmu_.has_value(), "caps() say that there is no trace");
  bind();
  ipt::CaptureOptions options = options_.capture;
  options.aux.thread = thread_.load();
  options.aux.scope =
      features().guest_only_trace ? ipt::TraceScope::kGuestOnly : ipt::TraceScope::kEverything;
  auto made =
      ipt::Capture::open(*options_.trace, *trace_pmu_, options, *request.sink, trace_place());
  if (!made.ok()) return made.error();
  capture_ = std::move(made).value();
  return capture_->setup();
}

void KvmVcpu::cut_trace() {
  US_CHECK(capture_ != nullptr, "there is no trace to cut");
  capture_->cut(trace_place());
}

void KvmVcpu::stop_trace() {
  if (capture_ == nullptr) return;
  capture_->stop(trace_place());
  capture_.reset();
}

// After an event was delivered by software.
void KvmVcpu::trace_delivery(uint64_t from) {
  if (capture_ != nullptr && !shadow_.shutdown) capture_->delivered(from, trace_place());
}

}  // namespace us::hv::kvm
