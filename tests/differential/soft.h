// The software processor under test: a small guest kernel gives it the host's view of user mode
// (same addresses, same selectors), and an IDT whose every handler is a HLT.
#pragma once

#include <memory>
#include <string>

#include "hv/core/memory.h"
#include "hv/core/no_bus.h"
#include "hv/cpu/soft_vcpu.h"
#include "tests/differential/snapshot.h"

namespace us::differential {

class Soft {
 public:
  Soft();
  ~Soft();

  // Puts a bank's code where the guest executes it.
  void load_code(unsigned bank, const uint8_t* bytes);
  // Runs one test: by blocks, or instruction by instruction.
  void run(const Snapshot& before, Snapshot& after, bool by_steps);

  const uint8_t* data() const { return data_; }
  const uint8_t* stack() const { return stack_; }
  // Makes the guest's data and stack regions equal to these.
  void set_memory(const uint8_t* data, const uint8_t* stack);
  // What the translator did; empty if everything was interpreted (UNDERSTUDY_EXECUTOR).
  std::string translator() const;
  uint64_t unknown_instructions() const { return vcpu_->cpu().unknown_instructions; }

 private:
  void build_kernel();
  void map(uint64_t va, uint64_t phys, uint64_t pages, uint64_t rights);
  void describe_interrupt(unsigned vector);
  void load(const Snapshot& s);
  void store(Snapshot& s);

  std::unique_ptr<hv::GuestMemory> memory_;
  std::unique_ptr<hv::NoBus> bus_;
  std::unique_ptr<hv::SoftVcpu> vcpu_;
  uint64_t next_table_ = 0;
  uint8_t* data_ = nullptr;
  uint8_t* stack_ = nullptr;
};

}  // namespace us::differential
