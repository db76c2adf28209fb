#include "tests/unit/kvm/rig.h"

namespace us::hv::kvm::test {

const pmu::EventRow& some_row() {
  for (const pmu::EventRow& row : pmu::all_events())
    if (row.skid_bounded) return row;
  US_CHECK(false, "no event");
}

ModelledHost::ModelledHost(const RigOptions& wanted)
    : options(wanted),
      perf(options.perf),
      trace(options.trace.value_or(model::TraceModelOptions{.there = false})),
      kvm(options.kvm, &perf, &trace) {}

Result<std::unique_ptr<KvmVcpu>> ModelledHost::make_vcpu(GuestMemory& memory, Bus& bus) {
  KvmOptions wanted = options.vcpu;
  if (options.counter)
    wanted.counter = [this](int signal) -> Result<std::unique_ptr<pmu::Counter>> {
      return pmu::PerfCounter::open(perf, some_row(), {.signal = signal});
    };
  wanted.trace = &trace;
  return KvmVcpu::create(kvm, memory, bus, wanted);
}

VcpuFactory modelled_vcpus(const RigOptions& options) {
  return [options](GuestMemory& memory, Bus& bus) -> Result<std::unique_ptr<Vcpu>> {
    const auto host = std::make_shared<ModelledHost>(options);
    host->options.vcpu.keeps = host;
    auto made = host->make_vcpu(memory, bus);
    host->options.vcpu.keeps.reset();  // the vCPU keeps it now
    return made;
  };
}

Rig::Rig(const RigOptions& wanted) : ModelledHost(wanted) {
  const auto factory = [this](GuestMemory& memory, Bus& bus) -> Result<std::unique_ptr<Vcpu>> {
    auto made = make_vcpu(memory, bus);
    if (made.ok()) vcpu = made->get();
    return made;
  };
  auto made =
      Machine::create({.memory_bytes = options.memory_bytes, .platform = {}}, world, factory);
  US_CHECK(made.ok(), "{}", made.error().text());
  machine = std::move(made).value();
}

}  // namespace us::hv::kvm::test
