// ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT. SDM 2, each instruction's page.
#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

// --- Operations: kFlags false leaves the flags as they are, for when nobody reads them.

struct Add {
  static constexpr bool kWrites = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, T b) {
    const T r = static_cast<T>(a + b);
    if constexpr (kFlags) set_flags_add<T>(c, a, b, r);
    return r;
  }
};
struct Adc {
  static constexpr bool kWrites = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, T b) {
    const T r = static_cast<T>(a + b + static_cast<T>(cf(c)));
    if constexpr (kFlags) set_flags_add<T>(c, a, b, r);
    return r;
  }
};
struct Sub {
  static constexpr bool kWrites = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, T b) {
    const T r = static_cast<T>(a - b);
    if constexpr (kFlags) set_flags_sub<T>(c, a, b, r);
    return r;
  }
};
struct Sbb {
  static constexpr bool kWrites = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, T b) {
    const T r = static_cast<T>(a - b - static_cast<T>(cf(c)));
    if constexpr (kFlags) set_flags_sub<T>(c, a, b, r);
    return r;
  }
};
struct Cmp : Sub {
  static constexpr bool kWrites = false;
};
struct And {
  static constexpr bool kWrites = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, T b) {
    const T r = a & b;
    if constexpr (kFlags) set_flags_logic<T>(c, r);
    return r;
  }
};
struct Test : And {
  static constexpr bool kWrites = false;
};
struct Or {
  static constexpr bool kWrites = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, T b) {
    const T r = a | b;
    if constexpr (kFlags) set_flags_logic<T>(c, r);
    return r;
  }
};
struct Xor {
  static constexpr bool kWrites = true;
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a, T b) {
    const T r = a ^ b;
    if constexpr (kFlags) set_flags_logic<T>(c, r);
    return r;
  }
};

// CF stays; OF when the sign flips the wrong way; AF when the low digit wraps.
template <class T>
inline void set_flags_step(Cpu& c, T a, T r, bool overflow) {
  const uint64_t carry = c.flag_aux & kAuxCarry;
  c.flag_result = sign_extend(r);
  c.flag_aux = carry | ((carry >> 1) ^ uint64_t{overflow}) |
               (static_cast<uint64_t>(static_cast<T>(a ^ r)) & kAuxAdjust);
}
struct Inc {
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a) {
    const T r = static_cast<T>(a + 1);
    if constexpr (kFlags) set_flags_step<T>(c, a, r, r == static_cast<T>(T{1} << (kBits<T> - 1)));
    return r;
  }
};
struct Dec {
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a) {
    const T r = static_cast<T>(a - 1);
    if constexpr (kFlags) set_flags_step<T>(c, a, r, a == static_cast<T>(T{1} << (kBits<T> - 1)));
    return r;
  }
};
struct Neg {
  template <class T, bool kFlags>
  static T apply(Cpu& c, T a) {
    const T r = static_cast<T>(0 - a);
    if constexpr (kFlags) set_flags_sub<T>(c, T{0}, a, r);
    return r;
  }
};
struct Not {
  template <class T, bool kFlags>
  static T apply(Cpu&, T a) {
    return static_cast<T>(~a);
  }
};

// --- Handlers of two operands. The destination's number is read before anything is stored: the
// compiler cannot know that a store into the Cpu leaves the op alone.

template <class Operation, class T, bool kFlags>
const Op* reg_reg(Cpu& c, const Op* op) {
  const uint8_t dst = op->dst;
  const T r = Operation::template apply<T, kFlags>(c, get_reg<T>(c, dst), get_reg<T>(c, op->src));
  if constexpr (Operation::kWrites) set_reg<T>(c, dst, r);
  US_NEXT(c, op);
}
template <class Operation, class T, bool kFlags>
const Op* reg_imm(Cpu& c, const Op* op) {
  const uint8_t dst = op->dst;
  const T r = Operation::template apply<T, kFlags>(c, get_reg<T>(c, dst), static_cast<T>(op->imm));
  if constexpr (Operation::kWrites) set_reg<T>(c, dst, r);
  US_NEXT(c, op);
}
// XOR r,r and SUB r,r.
template <class T, bool kFlags>
const Op* zero_reg(Cpu& c, const Op* op) {
  set_reg<T>(c, op->dst, T{0});
  if constexpr (kFlags) set_flags_logic<T>(c, T{0});
  US_NEXT(c, op);
}
// TEST r,r and CMP r,0, which leave the same flags.
template <class T>
const Op* test_self(Cpu& c, const Op* op) {
  set_flags_logic<T>(c, get_reg<T>(c, op->dst));
  US_NEXT(c, op);
}

template <class Operation, class T, bool kFlags>
struct RegMem {
  static void apply(Cpu& c, const Op* op, T value) {
    const uint8_t dst = op->dst;
    const T r = Operation::template apply<T, kFlags>(c, get_reg<T>(c, dst), value);
    if constexpr (Operation::kWrites) set_reg<T>(c, dst, r);
  }
};
template <class Operation, class T, bool kFlags>
struct MemReg {
  static T modify(Cpu& c, const Op* op, T old) {
    return Operation::template apply<T, kFlags>(c, old, get_reg<T>(c, op->src));
  }
  static void apply(Cpu& c, const Op* op, T value) { modify(c, op, value); }
};
template <class Operation, class T, bool kFlags>
struct MemImm {
  static T modify(Cpu& c, const Op* op, T old) {
    return Operation::template apply<T, kFlags>(c, old, static_cast<T>(op->imm));
  }
  static void apply(Cpu& c, const Op* op, T value) { modify(c, op, value); }
};

struct Forms {
  Handler reg_reg, reg_imm;
  ByPlace reg_mem, mem_reg, mem_imm;
};

template <class Operation, class T, bool kFlags>
constexpr Forms forms() {
  using ToReg = RegMem<Operation, T, kFlags>;
  using FromReg = MemReg<Operation, T, kFlags>;
  using FromImm = MemImm<Operation, T, kFlags>;
  Forms f{};
  f.reg_reg = &reg_reg<Operation, T, kFlags>;
  f.reg_imm = &reg_imm<Operation, T, kFlags>;
  f.reg_mem = kRead<T, ToReg>;
  if constexpr (Operation::kWrites) {
    f.mem_reg = kModify<T, FromReg>;
    f.mem_imm = kModify<T, FromImm>;
  } else {
    f.mem_reg = kRead<T, FromReg>;
    f.mem_imm = kRead<T, FromImm>;
  }
  return f;
}

// [size][flags wanted]
using Sizes = std::array<std::array<Forms, 2>, 4>;
template <class Operation>
constexpr Sizes sizes() {
  return {{{forms<Operation, uint8_t, false>(), forms<Operation, uint8_t, true>()},
           {forms<Operation, uint16_t, false>(), forms<Operation, uint16_t, true>()},
           {forms<Operation, uint32_t, false>(), forms<Operation, uint32_t, true>()},
           {forms<Operation, uint64_t, false>(), forms<Operation, uint64_t, true>()}}};
}
constexpr std::array<Sizes, 9> kBinary = {sizes<Add>(), sizes<Or>(),  sizes<Adc>(),
                                          sizes<Sbb>(), sizes<And>(), sizes<Sub>(),
                                          sizes<Xor>(), sizes<Cmp>(), sizes<Test>()};

int binary_index(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_ADD: return 0;
    case ZYDIS_MNEMONIC_OR: return 1;
    case ZYDIS_MNEMONIC_ADC: return 2;
    case ZYDIS_MNEMONIC_SBB: return 3;
    case ZYDIS_MNEMONIC_AND: return 4;
    case ZYDIS_MNEMONIC_SUB: return 5;
    case ZYDIS_MNEMONIC_XOR: return 6;
    case ZYDIS_MNEMONIC_CMP: return 7;
    case ZYDIS_MNEMONIC_TEST: return 8;
    default: return -1;
  }
}

// Frequent idioms that need less than their general form.
Selection idiom(const Insn& in, const Op& op, unsigned size) {
  static constexpr Handler kZeroReg[2][4] = {
      {&zero_reg<uint8_t, false>, &zero_reg<uint16_t, false>, &zero_reg<uint32_t, false>,
       &zero_reg<uint64_t, false>},
      {&zero_reg<uint8_t, true>, &zero_reg<uint16_t, true>, &zero_reg<uint32_t, true>,
       &zero_reg<uint64_t, true>}};
  static constexpr Handler kTestSelf[4] = {&test_self<uint8_t>, &test_self<uint16_t>,
                                           &test_self<uint32_t>, &test_self<uint64_t>};
  const ZydisMnemonic m = in.mnemonic();
  const bool same = in.is_reg(1) && op.dst == op.src;
  if (same && (m == ZYDIS_MNEMONIC_XOR || m == ZYDIS_MNEMONIC_SUB))
    return {.fn = kZeroReg[1][size], .fn_flags_dead = kZeroReg[0][size], .pure = true};
  if ((same && m == ZYDIS_MNEMONIC_TEST) ||
      (m == ZYDIS_MNEMONIC_CMP && in.is_imm(1) && in.imm(1) == 0))
    return {.fn = kTestSelf[size], .fn_flags_dead = &nothing_op, .pure = true};
  return {};
}

Selection select_binary(const Insn& in, Op& op, const Sizes& table) {
  const unsigned size = size_index(in.size(0));
  const auto& [dead, live] = table[size];
  if (in.is_mem(0)) {
    const unsigned place = take_memory(op, in, 0);
    if (in.is_imm(1)) {
      op.imm = in.imm(1);
      return {.fn = live.mem_imm[place], .fn_flags_dead = dead.mem_imm[place]};
    }
    op.src = in.number(1);
    return {.fn = live.mem_reg[place], .fn_flags_dead = dead.mem_reg[place]};
  }
  op.dst = in.number(0);
  if (in.is_mem(1)) {
    const unsigned place = take_memory(op, in, 1);
    return {.fn = live.reg_mem[place], .fn_flags_dead = dead.reg_mem[place]};
  }
  if (in.is_imm(1)) {
    op.imm = in.imm(1);
  } else {
    op.src = in.number(1);
  }
  if (const Selection special = idiom(in, op, size); special.fn != nullptr) return special;
  if (in.is_imm(1)) return {.fn = live.reg_imm, .fn_flags_dead = dead.reg_imm, .pure = true};
  return {.fn = live.reg_reg, .fn_flags_dead = dead.reg_reg, .pure = true};
}

// --- One operand

template <class Operation, class T, bool kFlags>
const Op* reg_only(Cpu& c, const Op* op) {
  const uint8_t dst = op->dst;
  set_reg<T>(c, dst, Operation::template apply<T, kFlags>(c, get_reg<T>(c, dst)));
  US_NEXT(c, op);
}
template <class Operation, class T, bool kFlags>
struct MemOnly {
  static T modify(Cpu& c, const Op*, T old) { return Operation::template apply<T, kFlags>(c, old); }
};
struct UnaryForms {
  Handler reg;
  ByPlace mem;
};
using UnarySizes = std::array<std::array<UnaryForms, 2>, 4>;
template <class Operation, class T>
constexpr std::array<UnaryForms, 2> unary_forms() {
  return {{{&reg_only<Operation, T, false>, kModify<T, MemOnly<Operation, T, false>>},
           {&reg_only<Operation, T, true>, kModify<T, MemOnly<Operation, T, true>>}}};
}
template <class Operation>
constexpr UnarySizes unary_sizes() {
  return {unary_forms<Operation, uint8_t>(), unary_forms<Operation, uint16_t>(),
          unary_forms<Operation, uint32_t>(), unary_forms<Operation, uint64_t>()};
}
constexpr std::array<UnarySizes, 4> kUnary = {unary_sizes<Inc>(), unary_sizes<Dec>(),
                                              unary_sizes<Neg>(), unary_sizes<Not>()};

int unary_index(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_INC: return 0;
    case ZYDIS_MNEMONIC_DEC: return 1;
    case ZYDIS_MNEMONIC_NEG: return 2;
    case ZYDIS_MNEMONIC_NOT: return 3;
    default: return -1;
  }
}

Selection select_unary(const Insn& in, Op& op, const UnarySizes& table) {
  const auto& [dead, live] = table[size_index(in.size(0))];
  if (in.is_mem(0)) {
    const unsigned place = take_memory(op, in, 0);
    return {.fn = live.mem[place], .fn_flags_dead = dead.mem[place]};
  }
  op.dst = in.number(0);
  return {.fn = live.reg, .fn_flags_dead = dead.reg, .pure = true};
}

}  // namespace

Selection select_alu(const Insn& in, Op& op) {
  if (const int i = binary_index(in.mnemonic()); i >= 0)
    return select_binary(in, op, kBinary[static_cast<unsigned>(i)]);
  if (const int i = unary_index(in.mnemonic()); i >= 0)
    return select_unary(in, op, kUnary[static_cast<unsigned>(i)]);
  return {};
}

}  // namespace us::hv
