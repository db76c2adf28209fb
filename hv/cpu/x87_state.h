// What every x87 instruction does before and after its arithmetic: the register stack, exception
// flags, pending exceptions, last-instruction pointers. SDM 1 chapter 8.
//
// Choices where the manual leaves one, the same on every host:
//  - condition codes called undefined keep their value, except that C1 is cleared wherever the
//    instruction could have set it;
//  - FCS and FDS are always stored as zero (CPUID.7.EBX[13]), FDP follows every memory operand, FOP
//    only instructions with an unmasked exception (fopcode compatibility off). SDM 1 8.1.8, 8.1.9;
//  - an unmasked exception always becomes #MF at the next waiting instruction, also with CR0.NE =
//  0:
//    this machine has no FERR# pin;
//  - a compare that raises an unmasked invalid or denormal exception sets no condition code.
#pragma once

#include "hv/cpu/handler.h"

namespace us::hv::x87 {

using Reg = X87State::Reg;

constexpr uint16_t kIe = 1, kDe = 2, kZe = 4, kOe = 8, kUe = 16, kPe = 32, kStackFault = 64,
                   kEs = 128, kC0 = 0x100, kC1 = 0x200, kC2 = 0x400, kC3 = 0x4000, kBusy = 0x8000,
                   kAllExceptions = 0x3f, kConditions = kC0 | kC1 | kC2 | kC3;
// Exceptions found before computing: unmasked, they leave the operands as they were. SDM 1 8.6.
constexpr uint16_t kBefore = kIe | kDe | kZe;
constexpr uint16_t kSign = 0x8000, kMaxExponent = 0x7fff;
constexpr uint64_t kIntegerBit = 1ull << 63, kQuietBit = 1ull << 62;
constexpr int kBias = 16383;

constexpr Reg kIndefinite = {kIntegerBit | kQuietBit, kSign | kMaxExponent, {}};

inline bool is_nan(const Reg& r) {
  return (r.exponent & kMaxExponent) == kMaxExponent && (r.mantissa << 1) != 0;
}
inline bool is_infinity(const Reg& r) {
  return (r.exponent & kMaxExponent) == kMaxExponent && r.mantissa == kIntegerBit;
}
inline bool is_zero(const Reg& r) { return (r.exponent & kMaxExponent) == 0 && r.mantissa == 0; }
// Denormal or pseudo-denormal. SDM 1 8.2.2.
inline bool is_denormal(const Reg& r) {
  return (r.exponent & kMaxExponent) == 0 && r.mantissa != 0;
}
// Unnormals, pseudo-infinities and pseudo-NaNs: invalid operands since the 387.
inline bool is_unsupported(const Reg& r) {
  return (r.exponent & kMaxExponent) != 0 && (r.mantissa & kIntegerBit) == 0;
}
inline bool is_signaling(const Reg& r) { return is_nan(r) && (r.mantissa & kQuietBit) == 0; }
inline bool negative(const Reg& r) { return (r.exponent & kSign) != 0; }

inline unsigned number(const X87State& f, unsigned i) { return (f.top() + i) & 7; }
inline bool empty(const X87State& f, unsigned i) { return ((f.valid >> number(f, i)) & 1) == 0; }
inline Reg& st(X87State& f, unsigned i) { return f.reg[number(f, i)]; }

inline void set_top(X87State& f, unsigned top) {
  f.status = static_cast<uint16_t>((f.status & ~0x3800) | ((top & 7) << 11));
}
inline void set_st(X87State& f, unsigned i, const Reg& value) {
  const unsigned n = number(f, i);
  f.reg[n] = value;
  f.valid = static_cast<uint16_t>(f.valid | (1u << n));
}
inline void pop(X87State& f) {
  f.valid = static_cast<uint16_t>(f.valid & ~(1u << f.top()));
  set_top(f, f.top() + 1);
}
inline void push(X87State& f, const Reg& value) {
  set_top(f, f.top() - 1);
  set_st(f, 0, value);
}

inline void set_c1(X87State& f, bool value) {
  f.status = static_cast<uint16_t>((f.status & ~kC1) | (value ? kC1 : 0));
}
inline void set_conditions(X87State& f, unsigned codes) {
  f.status = static_cast<uint16_t>((f.status & ~kConditions) | (codes & kConditions));
}

// ES and B say whether an unmasked exception is pending. SDM 1 8.1.3.3.
inline void refresh_summary(X87State& f) {
  const bool pending = (f.status & ~f.control & kAllExceptions) != 0;
  f.status = static_cast<uint16_t>((f.status & ~(kEs | kBusy)) | (pending ? kEs | kBusy : 0));
}

// Before a waiting instruction. False: #MF recorded.
inline bool no_pending_exception(Cpu& c) {
  return US_LIKELY((c.fpu.status & kEs) == 0) || raise(c, kX87Error);
}

// Once nothing can fault any more: remembers where the last non-control instruction was. Its memory
// operand, if it has one, is remembered too.
inline void track(Cpu& c, const Op& op) { c.fpu.ip = c.regs[kRipBase] + op.offset; }
inline void track_memory(Cpu& c, const Op& op) {
  track(c, op);
  c.fpu.dp = segment_offset(c, &op);
}

// Op::imm of every x87 op: the 11 opcode bits that FOP holds. SDM 1 figure 8-9.
inline uint16_t opcode_of(const Op& op) { return static_cast<uint16_t>(op.imm); }

// Sets exception flags; returns those of them that are unmasked.
inline uint16_t signal(X87State& f, const Op& op, unsigned flags) {
  f.status = static_cast<uint16_t>(f.status | flags);
  const auto unmasked = static_cast<uint16_t>(flags & ~f.control & kAllExceptions);
  if (unmasked != 0) {
    f.status |= kEs | kBusy;
    f.opcode = opcode_of(op);
  }
  return unmasked;
}

// An empty register was read. True: masked, the result is the indefinite.
inline bool underflow_masked(X87State& f, const Op& op) {
  set_c1(f, false);
  return signal(f, op, kIe | kStackFault) == 0;
}
// A push onto a register in use. True: masked, push the indefinite.
inline bool overflow_masked(X87State& f, const Op& op) {
  set_c1(f, true);
  return signal(f, op, kIe | kStackFault) == 0;
}

// Pushes a value that was made without exceptions.
inline void push_checked(X87State& f, const Op& op, const Reg& value) {
  if (US_UNLIKELY(!empty(f, 7))) {
    if (overflow_masked(f, op)) push(f, kIndefinite);
    return;
  }
  set_c1(f, false);
  push(f, value);
}

}  // namespace us::hv::x87
