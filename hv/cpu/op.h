// Decoded form. A block is a run of ops from consecutive instructions in one page; its last op ends
// it (jump, call, system instruction, or a plain fall-through) and is followed by its links.
#pragma once

#include <cstdint>

namespace us::hv {

struct Cpu;
struct Op;
struct Block;

// Executes one op and goes on to the next (see handler.h): returns the op to run next, or null to
// come back to the run loop with Cpu::exit saying why.
using Handler = const Op* (*)(Cpu&, const Op*);

struct Op {
  Handler fn = nullptr;
  uint64_t imm = 0;  // immediate (sign-extended), or for direct jumps the target's offset from the
                     // block's entry address
  int32_t disp = 0;  // displacement; for RIP-relative operands relative to the block's entry
  uint8_t dst = 0;   // register numbers; 8-bit registers as byte offsets into CpuState::regs
  uint8_t src = 0;
  uint8_t base = 0;     // Gpr; kZero if absent, kRipBase for RIP-relative
  uint8_t index = 0;    // Gpr; kZero if absent
  uint8_t scale = 0;    // shift count 0-3
  uint8_t seg = 0;      // Seg, used by handlers of the general addressing form
  uint16_t offset = 0;  // of this instruction from the block's entry address, bytes
  uint8_t length = 0;   // bytes (of both, when two instructions are fused)
  uint8_t ordinal = 0;  // how many instructions of the block come before this one
  uint8_t extra = 0;    // the family's own use
  uint8_t flags = 0;    // kAddress32, ...

  static constexpr uint8_t kAddress32 = 1;  // effective address is cut to 32 bits
  static constexpr uint8_t kAddress16 = 2;  // ... to 16 bits
  static constexpr uint8_t kLock = 4;
  static constexpr uint8_t kRep = 8;       // F3
  static constexpr uint8_t kRepne = 16;    // F2
  static constexpr uint8_t kFused = 32;    // stands for two instructions
  static constexpr uint8_t kBased64 = 64;  // 64-bit mode, full address, only FS or GS base to add
};
static_assert(sizeof(Op) == 32);

// Follows the op that ends a block, in the same array. Null: not linked (yet, or never).
struct Links {
  Block* taken = nullptr;
  Block* fall_through = nullptr;
  uint64_t may_link = 0;  // bit 0: taken lies in the same page; bit 1: fall-through does
  uint64_t reserved = 0;
};
static_assert(sizeof(Links) == sizeof(Op));

inline Links& links_of(const Op* last) {
  return *const_cast<Links*>(reinterpret_cast<const Links*>(last + 1));
}

// The processor mode a block was decoded for. Blocks of different modes never share links.
struct Mode {
  uint32_t bits = 0;
  bool operator==(const Mode&) const = default;

  static constexpr uint32_t kCode64 = 1;   // 64-bit mode
  static constexpr uint32_t kCode32 = 2;   // 32-bit default operand and address size (else 16)
  static constexpr uint32_t kStack32 = 4;  // SS.B; ignored in 64-bit mode
  static constexpr uint32_t kReal = 8;     // CR0.PE = 0 (or virtual-8086)
  static constexpr uint32_t kFpuOff =
      16;  // CR0.EM or CR0.TS: x87/MMX ops raise #NM (#UD for MMX with EM)
  static constexpr uint32_t kSseOff = 32;    // CR0.EM or !CR4.OSFXSR (#UD) or CR0.TS (#NM)
  static constexpr uint32_t kSseTraps = 64;  // an MXCSR exception is unmasked: careful SSE handlers
  static constexpr uint32_t kTrace = 128;    // branches are reported to the PT writer
  static constexpr uint32_t kSingle = 256;   // blocks of one instruction, for the stepper
  bool is64() const { return bits & kCode64; }
  bool is32() const { return bits & kCode32; }
};

struct Block {
  uint64_t phys = 0;  // guest physical address of its first byte
  uint32_t size = 0;  // bytes of guest code
  Mode mode;
  uint32_t op_count = 0;
  bool crosses_page = false;  // its (only) instruction continues on the next page at phys2
  bool valid = true;
  uint64_t phys2 = 0;
  Block* next_same_address = nullptr;  // another mode at the same place
  Block* next_in_page = nullptr;
  Block* next_crossing = nullptr;
  Op* ops = nullptr;
  // For the translator (translate/): the handler ops[0] had when it was decoded, where translated
  // code goes on when it comes here, how often the block was interpreted.
  Handler first = nullptr;
  const void* entry = nullptr;
  uint32_t heat = 0;
  bool translated = false;
};

}  // namespace us::hv
