// Machines whose vCPU is KVM's, with the model behind the seam, and the same guests on the software
// processor.
#pragma once

#include <memory>
#include <string>

#include "hv/kvm/kvm_vcpu.h"
#include "hv/kvm/model/kvm_model.h"
#include "hv/machine.h"
#include "pmu/perf_counter.h"
#include "replay-engine/landing.h"

namespace us::hv::kvm::test {

// Takes outputs and drops them, but for the console's text.
class TextWorld final : public OutputSink {
 public:
  std::string text;
  void frame(uint8_t, Bytes) override {}
  void disk(DiskRequest) override {}
  void console(uint8_t, ByteSpan bytes) override { text.append(bytes.begin(), bytes.end()); }
};

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
  uint64_t memory_bytes = 8u << 20;
};

// An event whose alarm is bounded; which one does not matter to a model.
const pmu::EventRow& some_row();

// A machine on the model. The machine goes first: it is declared last.
struct Rig {
  explicit Rig(const RigOptions& options = {});

  TextWorld world;
  model::PerfModel perf;
  model::TraceModel trace;
  model::KvmModel kvm;
  std::unique_ptr<Machine> machine;
  KvmVcpu* vcpu = nullptr;  // the machine's
};

// The payload between `begin` and `end` in a machine's memory at 1 MiB, in 64-bit mode with the
// first four GiB mapped one to one; `argument` in R14.
void load_payload(Machine& machine, const uint8_t* begin, const uint8_t* end, uint64_t argument);
std::unique_ptr<Machine> soft_machine(OutputSink& world, uint64_t memory_bytes = 8u << 20);

// State that two backends must agree on: registers (not the count of instructions), devices,
// memory.
struct FinalState {
  std::string registers, devices, memory;
  bool operator==(const FinalState&) const = default;
};
FinalState state_of(Machine& machine);
// Which of the registers differ, for a test that failed.
std::string differences(Machine& a, Machine& b);

}  // namespace us::hv::kvm::test
