// What a single step by RFLAGS.TF has to be prepared for, from the instruction it will execute.
//
// The trap flag is the guest's too. The processor clears it when it enters a handler, so a step
// that faults would run on to the handler's IRET; and it stands in every image of the flags that
// the instruction stores. So breakpoints are set where the instruction may lead by an exception,
// and the images are cleaned afterwards.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "hv/cpu/cpu.h"

namespace us::hv::kvm {

struct StepPlan {
  // Where the step may end without its trap, at most as many as there are debug registers. `vector`
  // is what leads there, or kNoVector: the instruction itself does.
  static constexpr int kNoVector = -1;
  struct Landing {
    uint64_t address = 0;  // linear
    int vector = kNoVector;
  };
  std::array<Landing, 4> landings;
  unsigned landing_count = 0;

  bool decoded = false;
  unsigned length = 0;
  bool conditional_branch = false;  // Jcc, JCXZ, LOOP families
  uint64_t target = 0;              // where it leads when taken
  bool reads_time = false;          // RDTSC, RDTSCP
  bool reads_time_aux = false;      // RDTSCP
  bool halts = false;
  bool repeats = false;        // a string instruction with REP
  bool opens_window = false;   // STI
  bool needs_rest = false;     // what may follow depends on MXCSR, x87 or MSRs
  bool stores_flags = false;   // PUSHF
  bool enters_system = false;  // SYSCALL: the flags go to R11
  bool holds_trap = false;     // MOV SS, POP SS, LSS: the trap comes after the next instruction
  unsigned flags_bytes = 0;    // of PUSHF's operand

  uint64_t from = 0;  // linear; a breakpoint there would end the step before it began

  // Adds a place, unless there is no room, it is there already, or it is `from`.
  void add(uint64_t address, int vector);
};

// `cpu` holds the guest's registers, segments and tables; nothing is changed.
StepPlan plan_step(const Cpu& cpu);
// The same for the instruction at `rip`, without landings.
StepPlan decode_at(const Cpu& cpu, uint64_t rip);

// The linear address of the handler that the guest's table names for a vector; empty: none.
std::optional<uint64_t> handler_of(const Cpu& cpu, uint8_t vector);

}  // namespace us::hv::kvm
