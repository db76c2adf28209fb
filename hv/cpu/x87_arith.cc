// FADD, FSUB, FSUBR, FMUL, FDIV, FDIVR, FSQRT, FRNDINT, FSCALE and the compares.
#include "hv/cpu/x87_host.h"
#include "hv/cpu/x87_tables.h"

namespace us::hv::x87 {
namespace {

// Takes over what the host said of one operation; the result lands in ST(dest). Returns whether it
// was stored (and a pop may follow).
bool finish(X87State& f, const Op& op, uint16_t sw, const Reg& result, unsigned dest) {
  set_c1(f, (sw & kC1) != 0);
  const uint16_t unmasked = signal(f, op, sw & kAllExceptions);
  if (US_UNLIKELY((unmasked & kBefore) != 0)) return false;
  set_st(f, dest, result);
  return true;
}

// ST(dest) = a OP b, both registers.
template <class Operation>
bool binary(X87State& f, const Op& op, unsigned a, unsigned b, unsigned dest) {
  if (US_UNLIKELY(empty(f, a) || empty(f, b))) {
    if (!underflow_masked(f, op)) return false;
    set_st(f, dest, kIndefinite);
    return true;
  }
  Reg result{};
  const uint16_t sw = run_host<Operation>(f, f.control, &st(f, a), &st(f, b), &result);
  return finish(f, op, sw, result, dest);
}

// D8 /r: ST = ST op ST(i).
template <class Operation>
bool to_top(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  binary<Operation>(c.fpu, op, 0, op.src, 0);
  return true;
}

// DC /r and DE /r: ST(i) = ST(i) op ST, then maybe a pop. Operation is seen from ST(i).
template <class Operation, bool kPop>
bool from_top(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  if (binary<Operation>(c.fpu, op, op.src, 0, op.src) && kPop) pop(c.fpu);
  return true;
}

// ST = ST op memory, of any of the four formats.
template <class T, class Operation>
bool with_memory(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  T operand;
  if (!load_operand(c, op, operand)) return false;
  track_memory(c, op);
  X87State& f = c.fpu;
  if (US_UNLIKELY(empty(f, 0))) {
    if (underflow_masked(f, op)) set_st(f, 0, kIndefinite);
    return true;
  }
  Reg result{};
  const uint16_t sw = run_host<Operation>(f, f.control, &st(f, 0), &operand, &result);
  finish(f, op, sw, result, 0);
  return true;
}

// ST = f(ST). FSCALE and FRNDINT do not look at the precision control. SDM 1 8.1.5.2.
template <class Operation>
bool unary(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  if (US_UNLIKELY(empty(f, 0))) {
    if (underflow_masked(f, op)) set_st(f, 0, kIndefinite);
    return true;
  }
  Reg result{};
  const uint16_t sw = run_host<Operation>(f, f.control, &st(f, 0), nullptr, &result);
  finish(f, op, sw, result, 0);
  return true;
}

bool scale(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  if (US_UNLIKELY(empty(f, 0) || empty(f, 1))) {
    if (underflow_masked(f, op)) set_st(f, 0, kIndefinite);
    return true;
  }
  Reg result{};
  const auto control = static_cast<uint16_t>(f.control | 0x300);
  const uint16_t sw = run_host<Scale>(f, control, &st(f, 0), &st(f, 1), &result);
  finish(f, op, sw, result, 0);
  return true;
}

// --- compares

void pop_times(X87State& f, unsigned times) {
  while (times-- > 0) pop(f);
}

// True: compared (or unordered by a masked exception), so pops may follow.
bool compared(X87State& f, const Op& op, uint16_t sw) {
  set_c1(f, false);
  const uint16_t unmasked = signal(f, op, sw & kAllExceptions);
  if ((unmasked & kBefore) != 0) return false;
  set_conditions(f, sw & (kC0 | kC2 | kC3));
  return true;
}

bool unordered_by_underflow(X87State& f, const Op& op) {
  if (!underflow_masked(f, op)) return false;
  set_conditions(f, kC0 | kC2 | kC3);
  return true;
}

template <class Operation, unsigned kPops>
bool compare(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  bool done;
  if (US_UNLIKELY(empty(f, 0) || empty(f, op.src))) {
    done = unordered_by_underflow(f, op);
  } else {
    Reg ignored;
    done = compared(f, op, run_host<Operation>(f, f.control, &st(f, 0), &st(f, op.src), &ignored));
  }
  if (done) pop_times(f, kPops);
  return true;
}

template <class T, class Operation, unsigned kPops>
bool compare_memory(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  T operand;
  if (!load_operand(c, op, operand)) return false;
  track_memory(c, op);
  X87State& f = c.fpu;
  bool done;
  if (US_UNLIKELY(empty(f, 0))) {
    done = unordered_by_underflow(f, op);
  } else {
    Reg ignored;
    done = compared(f, op, run_host<Operation>(f, f.control, &st(f, 0), &operand, &ignored));
  }
  if (done) pop_times(f, kPops);
  return true;
}

bool test(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  if (US_UNLIKELY(empty(f, 0))) {
    unordered_by_underflow(f, op);
    return true;
  }
  Reg ignored;
  compared(f, op, run_host<Test>(f, f.control, &st(f, 0), nullptr, &ignored));
  return true;
}

// FCOMI and FUCOMI: ZF PF CF; OF SF AF become 0. C0, C2, C3 stay.
template <class Operation, bool kPop>
bool compare_to_flags(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  uint16_t codes = kC0 | kC2 | kC3;
  if (US_UNLIKELY(empty(f, 0) || empty(f, op.src))) {
    if (!underflow_masked(f, op)) return true;
  } else {
    Reg ignored;
    codes = run_host<Operation>(f, f.control, &st(f, 0), &st(f, op.src), &ignored);
    set_c1(f, false);
    if ((signal(f, op, codes & kAllExceptions) & kBefore) != 0) return true;
  }
  set_arithmetic_flags(c, ((codes & kC0) ? flag::kCf : 0) | ((codes & kC2) ? flag::kPf : 0) |
                              ((codes & kC3) ? flag::kZf : 0));
  if (kPop) pop(f);
  return true;
}

template <auto kHelper>
constexpr Handler kCall = &call_op<kHelper>;

#define US_X87_ROW(T, Suffix)                                                               \
  {                                                                                         \
    kCall<with_memory<T, Add##Suffix>>, kCall<with_memory<T, Mul##Suffix>>,                 \
        kCall<compare_memory<T, Com##Suffix, 0>>, kCall<compare_memory<T, Com##Suffix, 1>>, \
        kCall<with_memory<T, Sub##Suffix>>, kCall<with_memory<T, SubR##Suffix>>,            \
        kCall<with_memory<T, Div##Suffix>>, kCall<with_memory<T, DivR##Suffix>>             \
  }

// D8 m32, DA i32, DC m64, DE i16.
constexpr Handler kMemory[4][8] = {US_X87_ROW(uint32_t, F32), US_X87_ROW(uint32_t, I32),
                                   US_X87_ROW(uint64_t, F64), US_X87_ROW(uint16_t, I16)};
#undef US_X87_ROW

constexpr Handler kToTop[8] = {kCall<to_top<Add>>,     kCall<to_top<Mul>>, kCall<compare<Com, 0>>,
                               kCall<compare<Com, 1>>, kCall<to_top<Sub>>, kCall<to_top<SubR>>,
                               kCall<to_top<Div>>,     kCall<to_top<DivR>>};
// Seen from ST(i) as the first operand: DC /4 is FSUBR (ST(i) = ST - ST(i)), DC /5 is FSUB.
constexpr Handler kFromTop[8] = {kCall<from_top<Add, false>>,  kCall<from_top<Mul, false>>,
                                 kCall<compare<Com, 0>>,       kCall<compare<Com, 1>>,
                                 kCall<from_top<SubR, false>>, kCall<from_top<Sub, false>>,
                                 kCall<from_top<DivR, false>>, kCall<from_top<Div, false>>};
constexpr Handler kFromTopPop[8] = {kCall<from_top<Add, true>>,  kCall<from_top<Mul, true>>,
                                    kCall<compare<Com, 1>>,      nullptr,
                                    kCall<from_top<SubR, true>>, kCall<from_top<Sub, true>>,
                                    kCall<from_top<DivR, true>>, kCall<from_top<Div, true>>};

}  // namespace

Handler memory_arithmetic(unsigned escape, unsigned reg) { return kMemory[escape / 2][reg]; }

Handler register_arithmetic(unsigned escape, unsigned reg, unsigned rm) {
  if (escape == 0) return kToTop[reg];
  if (escape == 4) return kFromTop[reg];
  if (escape == 6 && reg == 3) return rm == 1 ? kCall<compare<Com, 2>> : nullptr;  // FCOMPP
  return escape == 6 ? kFromTopPop[reg] : nullptr;
}

Handler register_compare(unsigned escape, unsigned reg, unsigned rm) {
  if (escape == 1 && reg == 4 && rm == 4) return kCall<test>;
  if (escape == 2 && reg == 5) return rm == 1 ? kCall<compare<UCom, 2>> : nullptr;  // FUCOMPP
  if (escape == 3 && reg == 5) return kCall<compare_to_flags<UCom, false>>;
  if (escape == 3 && reg == 6) return kCall<compare_to_flags<Com, false>>;
  if (escape == 5 && reg == 4) return kCall<compare<UCom, 0>>;
  if (escape == 5 && reg == 5) return kCall<compare<UCom, 1>>;
  if (escape == 7 && reg == 5) return kCall<compare_to_flags<UCom, true>>;
  if (escape == 7 && reg == 6) return kCall<compare_to_flags<Com, true>>;
  return nullptr;
}

Handler rounding_function(unsigned rm) {
  if (rm == 2) return kCall<unary<Sqrt>>;
  if (rm == 4) return kCall<unary<Round>>;
  return rm == 5 ? kCall<scale> : nullptr;
}

}  // namespace us::hv::x87
