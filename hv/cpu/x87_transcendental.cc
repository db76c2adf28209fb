// The instructions around x87_functions.h: stack faults, NaNs, condition codes; and FXTRACT.
#include <cstdlib>

#include "hv/cpu/x87_functions.h"
#include "hv/cpu/x87_host.h"
#include "hv/cpu/x87_tables.h"

namespace us::hv::x87 {
namespace {

bool odd_operand(const Reg& r) { return is_nan(r) || is_unsupported(r); }

// What a NaN or unsupported operand gives is the same for every instruction: FADD knows it. SDM 1
// table 4-7.
Answer propagate(const X87State& f, const Reg& a, const Reg& b) {
  Answer answer;
  answer.flags =
      kAllExceptions & run_host<Add>(f, f.control | kAllExceptions, &a, &b, &answer.value);
  return answer;
}

// Takes over flags and C1. False: an unmasked exception keeps the operands.
bool accept(X87State& f, const Op& op, const Answer& answer) {
  // An unmasked exception found before computing keeps the later kinds from being looked for.
  const bool early = (answer.flags & kBefore & ~f.control) != 0;
  set_c1(f, answer.rounded_up && !early);
  signal(f, op, early ? answer.flags & kBefore : answer.flags);
  return !early;
}

template <auto kFunction>
bool one_operand(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  if (empty(f, 0)) {
    if (underflow_masked(f, op)) set_st(f, 0, kIndefinite);
    return true;
  }
  const Reg a = st(f, 0);
  const Answer answer = odd_operand(a) ? propagate(f, a, a) : kFunction(a, f.control);
  if (accept(f, op, answer)) set_st(f, 0, answer.value);
  return true;
}

// FSIN and FCOS: C2 says that the operand is out of range and was left alone.
template <auto kFunction>
bool trigonometric(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  X87State& f = c.fpu;
  const Reg& a = st(f, 0);
  f.status &= static_cast<uint16_t>(~kC2);
  if (!empty(f, 0) && !odd_operand(a) && !is_infinity(a) && !in_trigonometric_range(a)) {
    track(c, op);
    set_c1(f, false);
    f.status |= kC2;
    return true;
  }
  return one_operand<kFunction>(c, op);
}

// For instructions that replace ST and push. True: go on.
bool room_for_two(X87State& f, const Op& op) {
  if (!empty(f, 0) && empty(f, 7)) return true;
  const bool masked = empty(f, 0) ? underflow_masked(f, op) : overflow_masked(f, op);
  if (masked) {
    set_st(f, 0, kIndefinite);
    push(f, kIndefinite);
  }
  return false;
}

// FPTAN and FSINCOS: ST becomes lower(ST), then upper(ST) is pushed.
template <auto kLower, auto kUpper>
bool trigonometric_pair(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  f.status &= static_cast<uint16_t>(~kC2);
  if (!room_for_two(f, op)) return true;
  const Reg a = st(f, 0);
  if (odd_operand(a) || is_infinity(a)) {
    const Answer answer = odd_operand(a) ? propagate(f, a, a) : invalid();
    if (!accept(f, op, answer)) return true;
    set_st(f, 0, answer.value);
    push(f, answer.value);
    return true;
  }
  if (!in_trigonometric_range(a)) {
    set_c1(f, false);
    f.status |= kC2;
    return true;
  }
  Answer upper = kUpper(a, f.control);
  const Answer lower = kLower(a, f.control);
  upper.flags |= lower.flags;
  if (!accept(f, op, upper)) return true;
  set_c1(f, lower.rounded_up);
  set_st(f, 0, lower.value);
  push(f, upper.value);
  return true;
}

Answer one(const Reg&, uint16_t) { return {.value = kOne}; }

// ST(1) = f(ST, ST(1)), pop.
template <auto kFunction>
bool two_operands(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  if (empty(f, 0) || empty(f, 1)) {
    if (!underflow_masked(f, op)) return true;
    pop(f);
    set_st(f, 0, kIndefinite);
    return true;
  }
  const Reg a = st(f, 0), b = st(f, 1);
  const Answer answer =
      odd_operand(a) || odd_operand(b) ? propagate(f, a, b) : kFunction(a, b, f.control);
  if (!accept(f, op, answer)) return true;
  pop(f);
  set_st(f, 0, answer.value);
  return true;
}

template <bool kNearest>
bool partial_remainder(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  f.status &= static_cast<uint16_t>(~kC2);  // C0 and C3 stay if there is no quotient
  if (empty(f, 0) || empty(f, 1)) {
    if (underflow_masked(f, op)) set_st(f, 0, kIndefinite);
    return true;
  }
  const Reg a = st(f, 0), b = st(f, 1);
  unsigned conditions = 0;
  const bool odd = odd_operand(a) || odd_operand(b);
  const Answer answer = odd ? propagate(f, a, b) : remainder(a, b, f.control, kNearest, conditions);
  if (!accept(f, op, answer)) return true;
  if (!odd && (answer.flags & kIe) == 0) set_conditions(f, conditions);
  set_st(f, 0, answer.value);
  return true;
}

// FXTRACT: ST becomes the exponent, the significand is pushed.
struct Extracted {
  Answer exponent;
  Reg significand;
};
Extracted extract_from(const Reg& a) {
  const uint16_t sign = a.exponent & kSign;
  if (is_infinity(a)) return {{.value = {kIntegerBit, kMaxExponent, {}}}, a};
  if (is_zero(a)) return {{.value = {kIntegerBit, kMaxExponent | kSign, {}}, .flags = kZe}, a};
  const Wide v = wide_of(a);
  const Wide exponent = make_wide(v.exponent < 0, static_cast<unsigned>(std::abs(v.exponent)), 0);
  Answer answer =
      round_wide({!is_zero(exponent) && exponent.negative, exponent.exponent, exponent.significand},
                 kHostControl, true);
  if (is_denormal(a)) answer.flags |= kDe;
  return {answer,
          {static_cast<uint64_t>(v.significand >> 64), static_cast<uint16_t>(sign | kBias), {}}};
}

bool extract(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  if (!room_for_two(f, op)) return true;
  const Reg a = st(f, 0);
  Extracted e;
  if (odd_operand(a)) {
    e.exponent = propagate(f, a, a);
    e.significand = e.exponent.value;
  } else {
    e = extract_from(a);
  }
  if (!accept(f, op, e.exponent)) return true;
  set_st(f, 0, e.exponent.value);
  push(f, e.significand);
  return true;
}

}  // namespace

Handler transcendental(unsigned reg, unsigned rm) {
  if (reg == 6) {
    switch (rm) {
      case 0: return &call_op<one_operand<f2xm1>>;
      case 1: return &call_op<two_operands<fyl2x>>;
      case 2: return &call_op<trigonometric_pair<fptan, one>>;
      case 3: return &call_op<two_operands<fpatan>>;
      default: return nullptr;
    }
  }
  switch (rm) {
    case 1: return &call_op<two_operands<fyl2xp1>>;
    case 3: return &call_op<trigonometric_pair<fsin, fcos>>;
    case 6: return &call_op<trigonometric<fsin>>;
    case 7: return &call_op<trigonometric<fcos>>;
    default: return nullptr;
  }
}

Handler remainder_function(unsigned reg, unsigned rm) {
  if (reg == 6 && rm == 4) return &call_op<extract>;
  if (reg == 6 && rm == 5) return &call_op<partial_remainder<true>>;
  if (reg == 7 && rm == 0) return &call_op<partial_remainder<false>>;
  return nullptr;
}

}  // namespace us::hv::x87
