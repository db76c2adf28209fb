// The assembler translated code is written with: guest registers, guest memory, guest flags.
//
// Register use in translated code:
//   RBP            the Cpu, plus kBias so that its first 256 bytes take short displacements
//   R15            retired conditional branches plus one
//   RAX RCX RDX    scratch
//   the other ten  guest RAX RCX RDX RBX RSP RBP RSI RDI R8 R12, see host_of(); the remaining six
//                  guest registers stay in Cpu::regs
#pragma once

#define XBYAK_NO_EXCEPTION
#include <xbyak/xbyak.h>

#include "hv/cpu/insn.h"
#include "hv/cpu/translate/code_memory.h"
#include "hv/cpu/translate/runtime.h"

namespace us::hv {

// Where the fields of a Cpu lie, relative to RBP.
struct Layout {
  explicit Layout(const Cpu& c);
  static constexpr int kBias = 128;
  int regs, instructions, branches, xmm, segments, dtlb, itlb, branch_limit, host_flags, scratch;
  int trace;
};

constexpr int kNotMapped = -1;
// The host register that holds a guest register, by Gpr.
constexpr int kHostOf[kGprCount] = {3,  6,          7,          8,          9,          10,
                                    11, 12,         13,         kNotMapped, kNotMapped, kNotMapped,
                                    14, kNotMapped, kNotMapped, kNotMapped, kNotMapped, kNotMapped};

// The r/m operand of an instruction about to be written.
struct RmOperand {
  bool memory = false;
  int reg = 0;   // the register's number, or the base register of the memory operand
  int disp = 0;  // with RBP as base only
};

class Emitter : public Xbyak::CodeGenerator {
 public:
  Emitter(Cpu& c, CodeMemory& memory);

  const uint8_t* executable() const { return memory_.executable(getCurr()); }

 protected:
  // --- Guest registers
  static bool mapped(unsigned guest) { return kHostOf[guest] != kNotMapped; }
  static Xbyak::Reg64 host(unsigned guest) { return Xbyak::Reg64(kHostOf[guest]); }
  Xbyak::Address home(unsigned guest) {
    return qword[rbp + layout_.regs + static_cast<int>(guest) * 8];
  }
  // Copies a guest register into `to`, or the other way.
  void get(const Xbyak::Reg64& to, unsigned guest);
  void put(unsigned guest, const Xbyak::Reg64& from);
  // Adds without touching flags; uses RCX if the register is not mapped.
  void advance(unsigned guest, int by);

  // --- Guest memory. An address in RAX becomes a host address in RAX, RCX and RDX are used.
  void linear_address(const Op& op, uint32_t block_offset, bool with_segment);
  void host_address(unsigned size, bool write, bool aligned, Xbyak::Label& miss);

  // --- Guest flags (see host_flags.h). Both use RAX.
  void save_flags(bool clear_adjust = false);
  void restore_flags();

  // One guest instruction again with other registers: same prefixes, opcode and immediate.
  // `extension` stands in ModRM.reg. Counts of shifts may be replaced.
  void rewrite(const Insn& in, int extension, const RmOperand& rm, int replaced_immediate = -1);

  // --- Leaving, written once (see runtime.h)
  void write_stubs(Cpu& c);
  struct Stubs {
    const void* enter = nullptr;           // executable: (Cpu*, code)
    const void* go_to_block = nullptr;     // executable: RDX is the block
    const void* look_up = nullptr;         // executable: RDX is the block
    const uint8_t* interpret = nullptr;    // these are writable addresses: RAX block, EDX index
    const uint8_t* stop = nullptr;         // RAX is where
    const uint8_t* find_target = nullptr;  // RAX is the slot
    const uint8_t* lone = nullptr;         // called: RAX is the op
    // Called; they keep all registers but RAX and RCX, branches_full the XMM registers too.
    const uint8_t* branches_full = nullptr;
    const uint8_t* indirect = nullptr;  // scratch[1] is the target
  };

  Layout layout_;
  Stubs stubs_;
  CodeMemory& memory_;

 private:
  void spill();
  void reload();
  void leave_frame(const void* function);
  void write_trace_stubs();
};

}  // namespace us::hv
