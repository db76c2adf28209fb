// Machines whose vCPU is KVM's, with the model behind the seam.
#pragma once

#include <memory>
#include <string>

#include "hv/kvm/kvm_vcpu.h"
#include "hv/kvm/model/kvm_model.h"
#include "hv/machine.h"
#include "pmu/perf_counter.h"
#include "tests/support/kvm_guest/guest.h"

namespace us::hv::kvm::test {

// What stands between machine and model. Signals that mean nothing everywhere, unless told
// otherwise.
struct RigOptions {
  model::KvmModelOptions kvm = {.seed = 1,
                                .interrupt_entry_one_in = 5,
                                .interrupt_after_branches = 400,
                                .interrupt_delivery_one_in = 3,
                                .time_exits = true};
  bool counter = true;  // branches are counted by the model of perf; else by stepping
  model::PerfOptions perf = {};
  std::optional<model::TraceModelOptions> trace = {};  // the host's Intel PT
  KvmOptions vcpu = {};
  uint64_t memory_bytes = kGuestMemoryBytes;
};

// An event whose alarm is bounded; which one does not matter to a model.
const pmu::EventRow& some_row();

// The model of a host.
struct ModelledHost {
  explicit ModelledHost(const RigOptions& options);
  Result<std::unique_ptr<KvmVcpu>> make_vcpu(GuestMemory& memory, Bus& bus);

  RigOptions options;
  model::PerfModel perf;
  model::TraceModel trace;
  model::KvmModel kvm;
};

// Makes vCPUs, each on a host of its own.
VcpuFactory modelled_vcpus(const RigOptions& options);

// A machine on the model. The machine goes first: it is declared last.
struct Rig : ModelledHost {
  explicit Rig(const RigOptions& options = {});

  TextWorld world;
  std::unique_ptr<Machine> machine;
  KvmVcpu* vcpu = nullptr;  // the machine's
};

}  // namespace us::hv::kvm::test
