// Loads, stores, constants, FXCH, FCMOVcc, FABS, FCHS, FXAM.
#include "hv/cpu/x87_host.h"
#include "hv/cpu/x87_tables.h"

namespace us::hv::x87 {
namespace {

// --- loads

// The common case of FLD m32/m64, a normal number or zero: exact, no exception.
inline bool widen(uint64_t bits, Reg& out) {
  const unsigned exponent = (bits >> 52) & 0x7ff;
  const uint64_t fraction = bits << 12;
  const auto sign = static_cast<uint16_t>((bits >> 48) & kSign);
  if (exponent == 0 && fraction == 0) {
    out = {0, sign, {}};
    return true;
  }
  if (exponent == 0 || exponent == 0x7ff) return false;
  out = {
      kIntegerBit | (fraction >> 1), static_cast<uint16_t>(sign | (exponent - 1023 + kBias)), {}};
  return true;
}
inline bool widen(uint32_t bits, Reg& out) {
  const unsigned exponent = (bits >> 23) & 0xff;
  const auto sign = static_cast<uint16_t>((bits >> 16) & kSign);
  if (exponent == 0 || exponent == 0xff) {
    out = {0, sign, {}};
    return (bits << 1) == 0;
  }
  out = {kIntegerBit | (static_cast<uint64_t>(bits) << 40),
         static_cast<uint16_t>(sign | (exponent - 127 + kBias)),
         {}};
  return true;
}

// A denormal is loaded even if its exception is unmasked; a signaling NaN then is not. SDM 2, FLD.
template <class T, class Operation>
bool load_float(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  T operand;
  if (!load_operand(c, op, operand)) return false;
  track_memory(c, op);
  X87State& f = c.fpu;
  Reg value{};
  if (US_LIKELY(widen(operand, value)) || !empty(f, 7)) {
    push_checked(f, op, value);
    return true;
  }
  const auto control = static_cast<uint16_t>(f.control | kAllExceptions);
  const uint16_t sw = run_host<Operation>(f, control, nullptr, &operand, &value);
  set_c1(f, false);
  if ((signal(f, op, sw & kAllExceptions) & kIe) == 0) push(f, value);
  return true;
}

template <class T>
bool load_integer(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  T operand;
  if (!load_operand(c, op, operand)) return false;
  track_memory(c, op);
  Reg value{};
  if (operand != 0) {
    const uint64_t magnitude = operand < 0
                                   ? 0 - static_cast<uint64_t>(static_cast<int64_t>(operand))
                                   : static_cast<uint64_t>(operand);
    const int shift = std::countl_zero(magnitude);
    value.mantissa = magnitude << shift;
    value.exponent = static_cast<uint16_t>((kBias + 63 - shift) | (operand < 0 ? kSign : 0));
  }
  push_checked(c.fpu, op, value);
  return true;
}

bool load_extended(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  Reg value{};
  if (!load_bytes(c, op, &value, 10)) return false;
  track_memory(c, op);
  push_checked(c.fpu, op, value);
  return true;
}

// Packed BCD; a nibble above 9 (undefined) counts with its binary value. SDM 1 4.7.
bool load_bcd(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  uint8_t digits[10];
  if (!load_bytes(c, op, digits, sizeof digits)) return false;
  track_memory(c, op);
  uint64_t magnitude = 0;
  for (int i = 8; i >= 0; --i)
    magnitude = magnitude * 100 + (digits[i] >> 4) * 10u + (digits[i] & 15);
  Reg value{};
  if (magnitude != 0) {
    const int shift = std::countl_zero(magnitude);
    value.mantissa = magnitude << shift;
    value.exponent = static_cast<uint16_t>(kBias + 63 - shift);
  }
  if ((digits[9] & 0x80) != 0) value.exponent |= kSign;
  push_checked(c.fpu, op, value);
  return true;
}

// --- stores

struct Bcd {
  uint8_t bytes[10];
};
inline bool put(Cpu& c, const Op& op, const Bcd& value) { return store_bytes(c, op, &value, 10); }
template <class T>
inline bool put(Cpu& c, const Op& op, const T& value) {
  return store_operand<T>(c, op, value);
}

// A store that an unmasked exception suppresses still finds out whether it could be done.
template <class T>
bool writable(Cpu& c, const Op& op) {
  uint64_t linear;
  return operand_address(c, op, sizeof(T), Access::kWrite, linear) &&
         probe_write(c, linear, sizeof(T));
}

// What an empty register stores when that is masked: the indefinite of the format.
template <class T, bool kFloat>
T indefinite_of() {
  if constexpr (std::is_same_v<T, Bcd>) {
    return {{0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff}};
  } else if constexpr (kFloat) {
    return static_cast<T>(sizeof(T) == 4 ? 0xffc0'0000u : 0xfff8'0000'0000'0000u);
  } else {
    return static_cast<T>(T{1} << (sizeof(T) * 8 - 1));
  }
}

// Narrowing that needs no rounding: value is a normal double with 53 bits, or zero.
inline bool narrow(const Reg& value, uint64_t& out) {
  const int exponent = (value.exponent & kMaxExponent) - kBias + 1023;
  const uint64_t sign = static_cast<uint64_t>(value.exponent & kSign) << 48;
  if (is_zero(value)) {
    out = sign;
    return true;
  }
  if (exponent < 1 || exponent > 2046 || (value.mantissa & 0x7ff) != 0 ||
      (value.mantissa & kIntegerBit) == 0)
    return false;
  out = sign | (static_cast<uint64_t>(exponent) << 52) | ((value.mantissa << 1) >> 12);
  return true;
}
template <class T>
inline bool narrow(const Reg&, T&) {
  return false;
}

// All exceptions of a store to memory but inexact, if unmasked, leave memory and stack alone. SDM
// 1 8.5.
template <class T, class Operation, bool kFloat, bool kPop>
bool store_converted(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  X87State& f = c.fpu;
  if (US_UNLIKELY(empty(f, 0))) {
    const bool masked = (f.control & kIe) != 0;
    if (masked ? !put(c, op, indefinite_of<T, kFloat>()) : !writable<T>(c, op)) return false;
    track_memory(c, op);
    underflow_masked(f, op);
    if (masked && kPop) pop(f);
    return true;
  }
  T out{};
  uint16_t sw = 0;
  if (!kFloat || !narrow(st(f, 0), out))
    sw = run_host<Operation>(f, f.control, &st(f, 0), nullptr, &out);
  const bool stored = (sw & ~f.control & kAllExceptions & ~kPe) == 0;
  if (stored ? !put(c, op, out) : !writable<T>(c, op)) return false;
  track_memory(c, op);
  set_c1(f, (sw & kC1) != 0);
  signal(f, op, sw & kAllExceptions);
  if (stored && kPop) pop(f);
  return true;
}

bool store_extended(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  X87State& f = c.fpu;
  const bool missing = empty(f, 0);
  if (missing && (f.control & kIe) == 0) {
    if (!writable<Bcd>(c, op)) return false;
    track_memory(c, op);
    underflow_masked(f, op);
    return true;
  }
  const Reg value = missing ? kIndefinite : st(f, 0);
  if (!store_bytes(c, op, &value, 10)) return false;
  track_memory(c, op);
  set_c1(f, false);
  if (missing) underflow_masked(f, op);
  pop(f);
  return true;
}

// --- between registers

bool load_register(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  if (US_UNLIKELY(empty(f, op.src))) {
    if (underflow_masked(f, op)) push(f, kIndefinite);
    return true;
  }
  const Reg value = st(f, op.src);
  push_checked(f, op, value);
  return true;
}

template <unsigned kPops>
bool store_register(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  Reg value = st(f, 0);
  set_c1(f, false);
  if (US_UNLIKELY(empty(f, 0))) {
    if (!underflow_masked(f, op)) return true;
    value = kIndefinite;
  }
  set_st(f, op.src, value);
  if (kPops != 0) pop(f);
  return true;
}

bool exchange(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  Reg top = st(f, 0), other = st(f, op.src);
  set_c1(f, false);
  if (US_UNLIKELY(empty(f, 0) || empty(f, op.src))) {
    if (!underflow_masked(f, op)) return true;
    if (empty(f, 0)) top = kIndefinite;
    if (empty(f, op.src)) other = kIndefinite;
  }
  set_st(f, 0, other);
  set_st(f, op.src, top);
  return true;
}

template <unsigned kCode>
bool conditional_move(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  set_c1(f, false);
  if (US_UNLIKELY(empty(f, 0) || empty(f, op.src))) {
    if (underflow_masked(f, op)) set_st(f, 0, kIndefinite);
    return true;
  }
  if (condition<kCode>(c)) set_st(f, 0, st(f, op.src));
  return true;
}

template <bool kAbsolute>
bool change_sign(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  set_c1(f, false);
  if (US_UNLIKELY(empty(f, 0))) {
    if (underflow_masked(f, op)) set_st(f, 0, kIndefinite);
    return true;
  }
  Reg& top = st(f, 0);
  top.exponent = static_cast<uint16_t>(kAbsolute ? top.exponent & ~kSign : top.exponent ^ kSign);
  return true;
}

// SDM 2, FXAM table 3-36.
unsigned class_of(const Reg& r) {
  if (is_unsupported(r)) return 0;
  if (is_nan(r)) return kC0;
  if (is_infinity(r)) return kC2 | kC0;
  if (is_zero(r)) return kC3;
  return is_denormal(r) ? kC3 | kC2 : kC2;
}

bool examine(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  X87State& f = c.fpu;
  const Reg& top = st(f, 0);
  const unsigned codes = empty(f, 0) ? kC3 | kC0 : class_of(top);
  set_conditions(f, codes | (negative(top) ? kC1 : 0));
  return true;
}

// --- constants, rounded by the rounding control. SDM 2, FLD1.

struct Constant {
  uint64_t mantissa;
  uint16_t exponent;
  int8_t error;  // of the nearest value: 1 it lies above the true one, -1 below, 0 exact
};
// FLD1 FLDL2T FLDL2E FLDPI FLDLG2 FLDLN2 FLDZ.
constexpr Constant kConstants[8] = {{0x8000'0000'0000'0000, kBias, 0},
                                    {0xd49a'784b'cd1b'8afe, kBias + 1, -1},
                                    {0xb8aa'3b29'5c17'f0bc, kBias, 1},
                                    {0xc90f'daa2'2168'c235, kBias + 1, 1},
                                    {0x9a20'9a84'fbcf'f799, kBias - 2, 1},
                                    {0xb172'17f7'd1cf'79ac, kBias - 1, 1},
                                    {0, 0, 0},
                                    {0, 0, 0}};

bool load_constant(Cpu& c, const Op& op) {
  if (!no_pending_exception(c)) return false;
  track(c, op);
  const Constant& constant = kConstants[op.src];
  const unsigned rounding = (c.fpu.control >> 10) & 3;  // 0 nearest, 1 down, 2 up, 3 to zero
  uint64_t mantissa = constant.mantissa;
  if (constant.error > 0 && (rounding & 1) != 0) --mantissa;
  if (constant.error < 0 && rounding == 2) ++mantissa;
  push_checked(c.fpu, op, {mantissa, constant.exponent, {}});
  return true;
}

template <auto kHelper>
constexpr Handler kCall = &call_op<kHelper>;

template <class T, class Operation, bool kFloat>
constexpr Handler kStore = kCall<store_converted<T, Operation, kFloat, false>>;
template <class T, class Operation, bool kFloat>
constexpr Handler kStorePop = kCall<store_converted<T, Operation, kFloat, true>>;

// D9, DB, DD, DF; what is null belongs to memory_control().
constexpr Handler kMemory[4][8] = {
    {kCall<load_float<uint32_t, LoadF32>>, nullptr, kStore<uint32_t, StoreF32, true>,
     kStorePop<uint32_t, StoreF32, true>, nullptr, nullptr, nullptr, nullptr},
    {kCall<load_integer<int32_t>>, kStorePop<uint32_t, TruncateI32, false>,
     kStore<uint32_t, StoreI32, false>, kStorePop<uint32_t, StoreI32, false>, nullptr,
     kCall<load_extended>, nullptr, kCall<store_extended>},
    {kCall<load_float<uint64_t, LoadF64>>, kStorePop<uint64_t, TruncateI64, false>,
     kStore<uint64_t, StoreF64, true>, kStorePop<uint64_t, StoreF64, true>, nullptr, nullptr,
     nullptr, nullptr},
    {kCall<load_integer<int16_t>>, kStorePop<uint16_t, TruncateI16, false>,
     kStore<uint16_t, StoreI16, false>, kStorePop<uint16_t, StoreI16, false>, kCall<load_bcd>,
     kCall<load_integer<int64_t>>, kStorePop<Bcd, StoreBcd, false>,
     kStorePop<uint64_t, StoreI64, false>}};

// Opposite conditions differ in bit 0 of the code: B 2, E 4, BE 6, U (PF) 10.
constexpr Handler kMoves[2][4] = {{kCall<conditional_move<2>>, kCall<conditional_move<4>>,
                                   kCall<conditional_move<6>>, kCall<conditional_move<10>>},
                                  {kCall<conditional_move<3>>, kCall<conditional_move<5>>,
                                   kCall<conditional_move<7>>, kCall<conditional_move<11>>}};

}  // namespace

Handler memory_move(unsigned escape, unsigned reg) { return kMemory[escape / 2][reg]; }

Handler register_move(unsigned escape, unsigned reg, unsigned rm) {
  if ((escape == 2 || escape == 3) && reg < 4) return kMoves[escape - 2][reg];
  if (escape == 1 && reg == 4) {
    if (rm == 0) return kCall<change_sign<false>>;
    if (rm == 1) return kCall<change_sign<true>>;
    return rm == 5 ? kCall<examine> : nullptr;
  }
  if (escape == 1 && reg == 5) return rm < 7 ? kCall<load_constant> : nullptr;
  if (escape == 1 && reg == 0) return kCall<load_register>;
  // DD C8 and DF C8 are FXCH too, D9 D8, DF D0 and DF D8 FSTP: as all processors have it.
  if ((escape == 1 || escape == 5 || escape == 7) && reg == 1) return kCall<exchange>;
  if (escape == 5 && reg == 2) return kCall<store_register<0>>;
  if (escape == 5 && reg == 3) return kCall<store_register<1>>;
  if ((escape == 1 && reg == 3) || (escape == 7 && (reg == 2 || reg == 3)))
    return kCall<store_register<1>>;
  return nullptr;
}

}  // namespace us::hv::x87
