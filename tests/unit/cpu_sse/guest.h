// Runs one instruction on the software processor, straight through its selector and handler.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "hv/core/memory.h"
#include "hv/core/no_bus.h"
#include "hv/cpu/cpu.h"
#include "hv/cpu/insn.h"
#include "tests/unit/cpu_sse/machine_state.h"

namespace us::test {

class Guest {
 public:
  Guest();
  ~Guest();

  hv::Cpu& cpu() { return *cpu_; }
  uint8_t* window();

  void load(const MachineState& s, unsigned offset);
  MachineState store();

  // False: not an instruction.
  bool decode(std::span<const uint8_t> code, hv::Insn& out, hv::Mode mode) const;
  // The selector's answer for decoded code under the Cpu's mode; fn null: nobody's.
  hv::Selection select(const hv::Insn& in, hv::Op& op) const;
  // Executes; c.exit says how it ended. False: not selected.
  bool run(std::span<const uint8_t> code);
  bool run(std::initializer_list<uint8_t> code) {
    return run(std::span<const uint8_t>(code.begin(), code.size()));
  }

  static std::string text(const hv::Insn& in);

 private:
  std::unique_ptr<hv::GuestMemory> memory_;
  std::unique_ptr<hv::NoBus> bus_;
  std::unique_ptr<hv::Cpu> cpu_;
};

}  // namespace us::test
