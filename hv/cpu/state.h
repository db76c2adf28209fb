// The architectural state of the software processor: what a snapshot holds and a digest covers.
// SDM 1 chapter 3, SDM 3A chapter 2.
#pragma once

#include <cstdint>
#include <cstring>

namespace us::hv {

// Indices into CpuState::regs. The two after the sixteen general registers serve addressing:
// kRipBase holds the address at which the running block was entered (RIP-relative operands and jump
// targets are offsets from it), kZero is always zero (absent base or index).
enum Gpr : uint8_t {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15,
  kRipBase,
  kZero,
  kGprCount
};

enum Seg : uint8_t { kEs, kCs, kSs, kDs, kFs, kGs, kSegCount };

// RFLAGS bits. SDM 1 3.4.3.
namespace flag {
constexpr uint64_t kCf = 1u << 0, kOne = 1u << 1, kPf = 1u << 2, kAf = 1u << 4, kZf = 1u << 6,
                   kSf = 1u << 7, kTf = 1u << 8, kIf = 1u << 9, kDf = 1u << 10, kOf = 1u << 11,
                   kIopl = 3u << 12, kNt = 1u << 14, kRf = 1u << 16, kVm = 1u << 17, kAc = 1u << 18,
                   kVif = 1u << 19, kVip = 1u << 20, kId = 1u << 21;
constexpr uint64_t kArithmetic = kCf | kPf | kAf | kZf | kSf | kOf;
}  // namespace flag

namespace cr0 {
constexpr uint64_t kPe = 1u << 0, kMp = 1u << 1, kEm = 1u << 2, kTs = 1u << 3, kEt = 1u << 4,
                   kNe = 1u << 5, kWp = 1u << 16, kAm = 1u << 18, kNw = 1u << 29, kCd = 1u << 30,
                   kPg = 1u << 31;
}
namespace cr4 {
constexpr uint64_t kVme = 1u << 0, kPvi = 1u << 1, kTsd = 1u << 2, kDe = 1u << 3, kPse = 1u << 4,
                   kPae = 1u << 5, kMce = 1u << 6, kPge = 1u << 7, kPce = 1u << 8,
                   kOsfxsr = 1u << 9, kOsxmmexcpt = 1u << 10, kUmip = 1u << 11,
                   kFsgsbase = 1u << 16, kPcide = 1u << 17, kOsxsave = 1u << 18, kSmep = 1u << 20,
                   kSmap = 1u << 21;
}
namespace efer {
constexpr uint64_t kSce = 1u << 0, kLme = 1u << 8, kLma = 1u << 10, kNxe = 1u << 11;
}

// Exception vectors. SDM 3A table 6-1.
enum Vector : uint8_t {
  kDivideError = 0,
  kDebug = 1,
  kNmiVector = 2,
  kBreakpointTrap = 3,
  kOverflow = 4,
  kBoundRange = 5,
  kInvalidOpcode = 6,
  kDeviceNotAvailable = 7,
  kDoubleFault = 8,
  kInvalidTss = 10,
  kSegmentNotPresent = 11,
  kStackFault = 12,
  kGeneralProtection = 13,
  kPageFault = 14,
  kX87Error = 16,
  kAlignmentCheck = 17,
  kMachineCheck = 18,
  kSimdError = 19
};

// A segment register with its hidden part. `access` holds descriptor bits 40-55 (type, S, DPL, P,
// AVL, L, D/B, G with the limit nibble zeroed): SDM 3A 3.4.5, figure 3-8. `limit` is in bytes,
// granularity applied.
struct Segment {
  uint64_t base = 0;
  uint32_t limit = 0;
  uint16_t access = 0;
  uint16_t selector = 0;

  static constexpr uint16_t kAccessed = 1, kWritable = 2, kReadable = 2, kExpandDown = 4,
                            kConforming = 4, kCode = 8, kS = 0x10, kPresent = 0x80, kLong = 0x2000,
                            kBig = 0x4000, kGranular = 0x8000;
  unsigned type() const { return access & 0xf; }
  unsigned dpl() const { return (access >> 5) & 3; }
  bool present() const { return (access & kPresent) != 0; }
  bool is_long() const { return (access & kLong) != 0; }
  bool big() const { return (access & kBig) != 0; }
  // A null selector loaded into a data segment: any use faults (outside 64-bit mode).
  bool usable() const { return present(); }
};

struct TableRegister {
  uint64_t base = 0;
  uint32_t limit = 0;
  uint32_t reserved = 0;
};

union alignas(16) Xmm {
  uint8_t b[16];
  uint16_t w[8];
  uint32_t d[4];
  uint64_t q[2];
  float ps[4];
  double pd[2];
};

// x87 registers by physical number; ST(i) is reg[(top + i) & 7], MMi is the low 64 bits of reg[i].
// SDM 1 8.1.
struct X87State {
  struct alignas(16) Reg {
    uint64_t mantissa;
    uint16_t exponent;  // sign in bit 15
    uint16_t pad[3];
  };
  Reg reg[8] = {};
  uint16_t control = 0x37f;
  uint16_t status = 0;  // TOP (bits 13:11) kept here
  uint16_t valid = 0;   // bit i: physical register i is not empty (the abridged tag of FXSAVE)
  uint16_t opcode = 0;  // last opcode, 11 bits
  uint64_t ip = 0;      // last instruction
  uint64_t dp = 0;      // last data
  uint16_t cs = 0, ds = 0;
  uint32_t reserved = 0;
  unsigned top() const { return (status >> 11) & 7; }
};

// MSRs kept by the processor itself (others go to the bus).
struct MsrState {
  uint64_t star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0, tsc_aux = 0;
  uint64_t sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  uint64_t pat = 0x0007'0406'0007'0406;
  uint64_t misc_enable = 1;
  uint64_t spec_ctrl = 0;
  uint64_t debugctl = 0;
  uint64_t mtrr_def_type = 0xc06;
  uint64_t mtrr_fixed[11] = {};
  uint64_t mtrr_base[8] = {}, mtrr_mask[8] = {};
  uint64_t mcg_status = 0;
  uint64_t xss = 0;
  uint64_t reserved[8] = {};
};

// What the instruction just executed keeps from happening at the boundary behind it.
enum class TrapHold : uint8_t {
  kNone,
  kSingleStep,  // INT n, INT1, INT3, INTO: no single-step trap
  kAll,         // MOV SS, POP SS, LSS: no debug exception at all. SDM 3A 6.8.3
};

struct CpuState {
  uint64_t regs[kGprCount] = {};
  // Lazily held arithmetic flags, see flags.h.
  uint64_t flag_result = 1;
  uint64_t flag_aux = 0;
  // RFLAGS without the six arithmetic flags; bit 1 is always set.
  uint64_t rflags_other = flag::kOne;
  uint64_t rip = 0;  // valid between instructions; inside a block the ops know theirs
  uint64_t instructions = 0;
  uint64_t branches = 0;  // retired conditional branches: Jcc, JCXZ family, LOOP family

  Xmm xmm[16] = {};
  uint32_t mxcsr = 0x1f80;
  uint32_t mxcsr_reserved = 0;
  X87State fpu;

  Segment seg[kSegCount];
  Segment ldtr, tr;
  TableRegister gdtr, idtr;
  uint64_t cr0 = 0x6000'0010, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0, xcr0 = 1;
  uint64_t dr[4] = {}, dr6 = 0xffff'0ff0, dr7 = 0x400;
  uint64_t pdpte[4] = {};  // PAE: loaded with CR3. SDM 3A 4.4.1
  MsrState msr;

  uint8_t cpl = 0;
  bool halted = false;
  bool shutdown = false;
  bool interrupt_shadow = false;  // STI or MOV SS just executed
  bool nmi_blocked = false;       // an NMI is in service, until IRET
  bool nmi_pending = false;
  TrapHold trap_hold = TrapHold::kNone;
  uint8_t debug_hits = 0;  // data and I/O breakpoints met and not yet reported, as in DR6
};

}  // namespace us::hv
