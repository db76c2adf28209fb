#include "replay-engine/witness.h"

#include <algorithm>

namespace us::replay {
namespace {

constexpr uint32_t kTruncated = 1;  // PERF_RECORD_AUX: the buffer was full
constexpr size_t kStagingBytes = size_t{1} << 16;

ipt::EpochPosition position_of(const hv::Machine& machine) {
  const hv::ExecutionPoint point = machine.point();
  return {point.branches.value, point.rip, point.rcx};
}

}  // namespace

Result<std::unique_ptr<Witness>> Witness::start(hv::Machine& machine, WitnessOptions options) {
  hv::Vcpu& vcpu = machine.vcpu();
  if (!vcpu.caps().traces_pt) {
    return UserError{.id = "IPT-001",
                     .exit_code = ExitCode::kHostCannot,
                     .what = "the guest cannot be traced",
                     .seen = fmt::format("backend {}", vcpu.caps().backend),
                     .needed = "a processor with Intel PT of guests, or the software processor",
                     .mend = "leave the check out (--no-ipt-check), or use --backend soft"};
  }
  std::unique_ptr<Witness> witness(new Witness(machine, std::move(options)));
  const WitnessOptions& o = witness->options_;
  hv::TraceRequest request{.sink = witness.get(), .staging_bytes = kStagingBytes};
  if (o.buffer_bytes != 0) request.staging_bytes = std::min(kStagingBytes, o.buffer_bytes / 2);
  if (o.variation_seed != 0) request.variation = ipt::VariationConfig::all(o.variation_seed);
  const auto setup = vcpu.start_trace(request);
  if (!setup.ok()) return setup.error();
  if (o.check) witness->form_.emplace(ipt::NormalFormOptions{.setup = *setup});
  witness->start_ = position_of(machine);
  return witness;
}

std::string state_digests_only(const UserError& error) {
  return fmt::format("{} ({}): only state digests are compared", error.what, error.seen);
}

Witness::~Witness() { stop(); }

void Witness::stop() { machine_.vcpu().stop_trace(); }

bool Witness::accept(ByteSpan bytes) {
  epoch_bytes_ += bytes.size();
  if (options_.buffer_bytes != 0 && epoch_bytes_ > options_.buffer_bytes) {
    lost(kTruncated);
    return false;
  }
  bytes_ += bytes.size();
  if (form_) form_->feed(bytes);
  if (options_.raw) options_.raw(bytes);
  return true;
}

void Witness::lost(uint32_t aux_flags) {
  if (form_) form_->note_aux_flags(aux_flags);
}

void Witness::stands(uint64_t ip) {
  if (form_) form_->note_position(ip);
}

void Witness::delivered(uint64_t from, uint64_t to) {
  if (form_) form_->note_delivery(from, to);
}

ipt::EpochDigest Witness::cut(uint64_t epoch) {
  US_CHECK(form_.has_value(), "no digest was asked for");
  machine_.vcpu().cut_trace();
  const ipt::EpochPosition here = position_of(machine_);
  ipt::EpochDigest digest =
      form_->end_epoch({.epoch = epoch, .start = std::exchange(start_, here), .end = here});
  epoch_bytes_ = 0;
  return digest;
}

}  // namespace us::replay
