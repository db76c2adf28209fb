// The software vCPU's Intel PT: tracing on, off, and cut into stretches.
#include "hv/cpu/soft_vcpu.h"
#include "hv/cpu/trace.h"

namespace us::hv {

Result<ipt::TraceSetup> SoftVcpu::start_trace(const TraceRequest& request) {
  US_CHECK(trace_ == nullptr && request.sink != nullptr, "tracing needs a sink, once");
  Cpu& c = *cpu_;
  ipt::PacketWriterConfig config;
  config.staging_bytes = request.staging_bytes;
  config.initial_mode = exec_mode(c);
  config.variation = request.variation;
  trace_ = std::make_unique<ipt::PacketWriter>(*request.sink, config);
  c.trace = trace_.get();
  // Blocks with and without tracing must not be linked.
  c.link_slot = nullptr;
  update_mode(c);
  trace_->cr3(c.cr3);
  trace_->enable(linear_ip(c, c.rip));
  return ipt::TraceSetup{.linear_addresses = true};
}

void SoftVcpu::cut_trace() {
  US_CHECK(trace_ != nullptr, "there is no trace to cut");
  const uint64_t here = linear_ip(*cpu_, cpu_->rip);
  trace_->exit(here);
  trace_->flush();
  trace_->psb_at_enable();
  trace_->enable(here);
}

void SoftVcpu::stop_trace() {
  if (trace_ == nullptr) return;
  trace_->exit(linear_ip(*cpu_, cpu_->rip));
  trace_->flush();
  cpu_->trace = nullptr;
  cpu_->link_slot = nullptr;
  update_mode(*cpu_);
  trace_.reset();
}

void SoftVcpu::move_trace() {
  if (trace_ == nullptr) return;
  trace_->disable();
  trace_->cr3(cpu_->cr3);
  trace_->exec_mode(exec_mode(*cpu_));
  trace_->enable(linear_ip(*cpu_, cpu_->rip));
}

}  // namespace us::hv
