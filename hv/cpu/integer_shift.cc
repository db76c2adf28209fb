// SHL SHR SAR ROL ROR RCL RCR SHLD SHRD. OF is defined for counts of one only; here it follows the
// same formula at every count, as Intel parts do. AF, undefined after shifts, is 0; rotates leave
// all but CF and OF. A count of zero (after masking) leaves every flag. SDM 2B "SAL/SAR/SHL/SHR".
#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

template <class T>
constexpr unsigned kCountMask = sizeof(T) == 8 ? 63 : 31;

template <class T>
inline uint64_t top_bit(T value) {
  return static_cast<uint64_t>(value) >> (kBits<T> - 1);
}
template <class T>
inline uint64_t second_bit(T value) {
  return (static_cast<uint64_t>(value) >> (kBits<T> - 2)) & 1;
}

// CF and OF change, the other flags stay.
inline void set_carry_overflow(Cpu& c, uint64_t carry, uint64_t overflow) {
  c.flag_aux = (c.flag_aux & ~uint64_t{3}) | (carry << 1) | (carry ^ overflow);
}

// --- Operations. Counts are 1 to 31 (63 for 64 bits), or 0 when kFlags is false.

struct Shl {
  static constexpr bool kNeedsCount = false;  // right without flags even if the count is 0
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, unsigned n) {
    if constexpr (!kFlags) return static_cast<T>(uint64_t{a} << n);
    const uint64_t before = uint64_t{a} << (n - 1);
    const T r = static_cast<T>(before << 1);
    c.flag_result = sign_extend(r);
    // OF is CF ^ top bit, so the carry into the top bit is the top bit.
    c.flag_aux = top_bit<T>(static_cast<T>(before)) << 1 | top_bit<T>(r);
    return r;
  }
};
struct Shr {
  static constexpr bool kNeedsCount = false;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, unsigned n) {
    if constexpr (!kFlags) return static_cast<T>(uint64_t{a} >> n);
    const uint64_t before = uint64_t{a} >> (n - 1);
    const T r = static_cast<T>(before >> 1);
    const uint64_t carry = before & 1;
    c.flag_result = sign_extend(r);
    c.flag_aux = carry << 1 | (carry ^ second_bit<T>(r));
    return r;
  }
};
struct Sar {
  static constexpr bool kNeedsCount = false;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, unsigned n) {
    const auto wide = static_cast<int64_t>(sign_extend(a));
    if constexpr (!kFlags) return static_cast<T>(wide >> n);
    const int64_t before = wide >> (n - 1);
    const T r = static_cast<T>(before >> 1);
    c.flag_result = sign_extend(r);
    c.flag_aux = (static_cast<uint64_t>(before) & 1) * 3;  // OF = 0
    return r;
  }
};
struct Rol {
  static constexpr bool kNeedsCount = false;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, unsigned n) {
    const T r = std::rotl(a, static_cast<int>(n));
    if constexpr (kFlags) set_carry_overflow(c, r & 1, (r & 1) ^ top_bit<T>(r));
    return r;
  }
};
struct Ror {
  static constexpr bool kNeedsCount = false;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, unsigned n) {
    const T r = std::rotr(a, static_cast<int>(n));
    if constexpr (kFlags) set_carry_overflow(c, top_bit<T>(r), top_bit<T>(r) ^ second_bit<T>(r));
    return r;
  }
};
// Rotates through carry turn kBits + 1 bits.
struct Rcl {
  static constexpr bool kNeedsCount = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, unsigned n) {
    n %= kBits<T> + 1;
    if (n == 0) return a;
    const uint64_t wide = a, carry_in = cf(c);
    const uint64_t low = n == 1 ? 0 : wide >> (kBits<T> + 1 - n);
    const T r = static_cast<T>((n == kBits<T> ? 0 : wide << n) | (carry_in << (n - 1)) | low);
    if constexpr (kFlags) {
      const uint64_t carry = (wide >> (kBits<T> - n)) & 1;
      set_carry_overflow(c, carry, carry ^ top_bit<T>(r));
    }
    return r;
  }
};
struct Rcr {
  static constexpr bool kNeedsCount = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, unsigned n) {
    n %= kBits<T> + 1;
    if (n == 0) return a;
    const uint64_t wide = a, carry_in = cf(c);
    const uint64_t high = n == 1 ? 0 : wide << (kBits<T> + 1 - n);
    const T r =
        static_cast<T>((n == kBits<T> ? 0 : wide >> n) | (carry_in << (kBits<T> - n)) | high);
    if constexpr (kFlags)
      set_carry_overflow(c, (wide >> (n - 1)) & 1, top_bit<T>(r) ^ second_bit<T>(r));
    return r;
  }
};

template <class Operation, class T, bool kFlags>
inline T apply_count(Cpu& c, T a, unsigned n) {
  if ((kFlags || Operation::kNeedsCount) && n == 0) return a;
  return Operation::template apply<T, kFlags>(c, a, n);
}

// --- Handlers. An immediate count is masked when decoded; zero becomes kByZero below.

template <class Operation, class T, bool kFlags>
const Op* reg_by_imm(Cpu& c, const Op* op) {
  const uint8_t dst = op->dst;
  const T r =
      Operation::template apply<T, kFlags>(c, get_reg<T>(c, dst), static_cast<unsigned>(op->imm));
  set_reg<T>(c, dst, r);
  US_NEXT(c, op);
}
template <class Operation, class T, bool kFlags>
const Op* reg_by_cl(Cpu& c, const Op* op) {
  const unsigned n = static_cast<unsigned>(c.regs[kRcx]) & kCountMask<T>;
  set_reg<T>(c, op->dst, apply_count<Operation, T, kFlags>(c, get_reg<T>(c, op->dst), n));
  US_NEXT(c, op);
}
template <class Operation, class T, bool kFlags>
struct MemByImm {
  static T modify(Cpu& c, const Op* op, T old) {
    return apply_count<Operation, T, kFlags>(c, old, static_cast<unsigned>(op->imm));
  }
};
template <class Operation, class T, bool kFlags>
struct MemByCl {
  static T modify(Cpu& c, const Op*, T old) {
    return apply_count<Operation, T, kFlags>(c, old,
                                             static_cast<unsigned>(c.regs[kRcx]) & kCountMask<T>);
  }
};
// A 32-bit register still loses its upper half.
template <class T>
const Op* reg_by_zero(Cpu& c, const Op* op) {
  set_reg<T>(c, op->dst, get_reg<T>(c, op->dst));
  US_NEXT(c, op);
}

struct Forms {
  Handler reg_imm, reg_cl;
  ByPlace mem_imm, mem_cl;
};
template <class Operation, class T, bool kFlags>
constexpr Forms forms() {
  return {&reg_by_imm<Operation, T, kFlags>, &reg_by_cl<Operation, T, kFlags>,
          kModify<T, MemByImm<Operation, T, kFlags>>, kModify<T, MemByCl<Operation, T, kFlags>>};
}
using Sizes = std::array<std::array<Forms, 2>, 4>;
template <class Operation>
constexpr Sizes sizes() {
  return {{{forms<Operation, uint8_t, false>(), forms<Operation, uint8_t, true>()},
           {forms<Operation, uint16_t, false>(), forms<Operation, uint16_t, true>()},
           {forms<Operation, uint32_t, false>(), forms<Operation, uint32_t, true>()},
           {forms<Operation, uint64_t, false>(), forms<Operation, uint64_t, true>()}}};
}
constexpr std::array<Sizes, 7> kShifts = {sizes<Rol>(), sizes<Ror>(), sizes<Rcl>(), sizes<Rcr>(),
                                          sizes<Shl>(), sizes<Shr>(), sizes<Sar>()};
constexpr std::array<Handler, 4> kByZero = {&reg_by_zero<uint8_t>, &reg_by_zero<uint16_t>,
                                            &reg_by_zero<uint32_t>, &reg_by_zero<uint64_t>};

int shift_index(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_ROL: return 0;
    case ZYDIS_MNEMONIC_ROR: return 1;
    case ZYDIS_MNEMONIC_RCL: return 2;
    case ZYDIS_MNEMONIC_RCR: return 3;
    case ZYDIS_MNEMONIC_SHL: return 4;
    case ZYDIS_MNEMONIC_SHR: return 5;
    case ZYDIS_MNEMONIC_SAR: return 6;
    default: return -1;
  }
}

uint64_t masked_count(const Insn& in, unsigned operand) {
  return in.imm(operand) & (in.size(0) == 8 ? 63 : 31);
}

Selection select_single(const Insn& in, Op& op, const Sizes& table) {
  const unsigned size = size_index(in.size(0));
  const auto& [dead, live] = table[size];
  const bool by_imm = in.is_imm(1);
  if (by_imm) op.imm = masked_count(in, 1);
  if (in.is_mem(0)) {
    const unsigned place = take_memory(op, in, 0);
    if (by_imm) return {.fn = live.mem_imm[place], .fn_flags_dead = dead.mem_imm[place]};
    return {.fn = live.mem_cl[place], .fn_flags_dead = dead.mem_cl[place]};
  }
  op.dst = in.number(0);
  if (!by_imm) return {.fn = live.reg_cl, .fn_flags_dead = dead.reg_cl, .pure = true};
  if (op.imm == 0) return {.fn = kByZero[size], .pure = true};
  return {.fn = live.reg_imm, .fn_flags_dead = dead.reg_imm, .pure = true};
}

// --- SHLD, SHRD. A 16-bit operand shifted by more than 16, undefined, sees the destination again
// behind the source (a 48-bit value), as Intel parts do.

template <class T>
inline uint64_t three_words(T a, T b) {
  return uint64_t{a} << 32 | uint64_t{b} << 16 | a;
}
struct ShiftLeftDouble {
  template <class T>
  static T apply(Cpu& c, T a, T b, unsigned n) {
    T r;
    uint64_t carry;
    if constexpr (sizeof(T) == 2) {
      r = static_cast<T>(three_words<T>(a, b) >> (32 - n));
      carry = (three_words<T>(a, b) >> (48 - n)) & 1;
    } else {
      r = static_cast<T>(a << n | b >> (kBits<T> - n));
      carry = (a >> (kBits<T> - n)) & 1;
    }
    c.flag_result = sign_extend(r);
    c.flag_aux = carry << 1 | top_bit<T>(r);
    return r;
  }
};
struct ShiftRightDouble {
  template <class T>
  static T apply(Cpu& c, T a, T b, unsigned n) {
    T r;
    uint64_t carry;
    if constexpr (sizeof(T) == 2) {
      r = static_cast<T>(three_words<T>(a, b) >> n);
      carry = (three_words<T>(a, b) >> (n - 1)) & 1;
    } else {
      r = static_cast<T>(a >> n | b << (kBits<T> - n));
      carry = (a >> (n - 1)) & 1;
    }
    c.flag_result = sign_extend(r);
    c.flag_aux = carry << 1 | (carry ^ top_bit<T>(r) ^ second_bit<T>(r));
    return r;
  }
};

template <class T, bool kByCl>
inline unsigned double_count(const Cpu& c, const Op* op) {
  return static_cast<unsigned>(kByCl ? c.regs[kRcx] : op->imm) & kCountMask<T>;
}
template <class Operation, class T, bool kByCl>
const Op* double_reg(Cpu& c, const Op* op) {
  const T a = get_reg<T>(c, op->dst);
  const unsigned n = double_count<T, kByCl>(c, op);
  set_reg<T>(c, op->dst,
             n == 0 ? a : Operation::template apply<T>(c, a, get_reg<T>(c, op->src), n));
  US_NEXT(c, op);
}
template <class Operation, class T, bool kByCl>
struct DoubleMem {
  static T modify(Cpu& c, const Op* op, T old) {
    const unsigned n = double_count<T, kByCl>(c, op);
    return n == 0 ? old : Operation::template apply<T>(c, old, get_reg<T>(c, op->src), n);
  }
};
struct DoubleForms {
  Handler reg[2];  // [by CL]
  ByPlace mem[2];
};
template <class Operation, class T>
constexpr DoubleForms double_forms() {
  return {{&double_reg<Operation, T, false>, &double_reg<Operation, T, true>},
          {kModify<T, DoubleMem<Operation, T, false>>, kModify<T, DoubleMem<Operation, T, true>>}};
}
template <class Operation>
constexpr std::array<DoubleForms, 3> double_sizes() {
  return {double_forms<Operation, uint16_t>(), double_forms<Operation, uint32_t>(),
          double_forms<Operation, uint64_t>()};
}
constexpr std::array<std::array<DoubleForms, 3>, 2> kDoubles = {double_sizes<ShiftLeftDouble>(),
                                                                double_sizes<ShiftRightDouble>()};

Selection select_double(const Insn& in, Op& op, bool right) {
  const DoubleForms& forms = kDoubles[right][size_index(in.size(0)) - 1];
  const bool by_cl = !in.is_imm(2);
  if (!by_cl) op.imm = masked_count(in, 2);
  op.src = in.number(1);
  if (in.is_mem(0)) return {.fn = forms.mem[by_cl][take_memory(op, in, 0)]};
  op.dst = in.number(0);
  return {.fn = forms.reg[by_cl], .pure = true};
}

}  // namespace

Selection select_shift(const Insn& in, Op& op) {
  if (in.mnemonic() == ZYDIS_MNEMONIC_SHLD) return select_double(in, op, false);
  if (in.mnemonic() == ZYDIS_MNEMONIC_SHRD) return select_double(in, op, true);
  const int i = shift_index(in.mnemonic());
  return i < 0 ? Selection{} : select_single(in, op, kShifts[static_cast<unsigned>(i)]);
}

}  // namespace us::hv
