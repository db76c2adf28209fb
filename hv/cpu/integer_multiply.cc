// MUL, IMUL in its three forms, DIV, IDIV. After a multiplication SF, ZF and PF, undefined, are
// those of the low half and AF is 0; division leaves all flags.
#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

template <size_t kBytes>
struct Twice;
template <>
struct Twice<1> {
  using Unsigned = uint16_t;
  using Signed = int16_t;
};
template <>
struct Twice<2> {
  using Unsigned = uint32_t;
  using Signed = int32_t;
};
template <>
struct Twice<4> {
  using Unsigned = uint64_t;
  using Signed = int64_t;
};
template <>
struct Twice<8> {
  __extension__ using Unsigned = unsigned __int128;
  __extension__ using Signed = __int128;
};
template <class T>
using Wide = typename Twice<sizeof(T)>::Unsigned;
template <class T>
using SignedWide = typename Twice<sizeof(T)>::Signed;
template <class T>
using Signed = std::make_signed_t<T>;

template <class T>
inline void set_product_flags(Cpu& c, T low, bool overflow) {
  c.flag_result = sign_extend(low);
  c.flag_aux = overflow ? kAuxCarry : 0;  // CF = OF, so no carry into the top bit
}

// The double-width pair: AX, DX:AX, EDX:EAX, RDX:RAX.
template <class T>
inline Wide<T> get_pair(const Cpu& c) {
  if constexpr (sizeof(T) == 1)
    return static_cast<uint16_t>(c.regs[kRax]);
  else
    return static_cast<Wide<T>>(static_cast<Wide<T>>(get_reg<T>(c, kRdx)) << kBits<T> |
                                get_reg<T>(c, kRax));
}
template <class T>
inline void set_pair(Cpu& c, T low, T high) {
  if constexpr (sizeof(T) == 1) {
    set_reg<uint16_t>(c, kRax, static_cast<uint16_t>(high << 8 | low));
  } else {
    set_reg<T>(c, kRax, low);
    set_reg<T>(c, kRdx, high);
  }
}

// --- One operand

struct Multiply {
  template <class T>
  static void apply(Cpu& c, T value) {
    const Wide<T> product = static_cast<Wide<T>>(static_cast<Wide<T>>(get_reg<T>(c, kRax)) * value);
    const T low = static_cast<T>(product), high = static_cast<T>(product >> kBits<T>);
    set_product_flags<T>(c, low, high != 0);
    set_pair<T>(c, low, high);
  }
};
template <class T>
inline SignedWide<T> signed_product(T a, T b) {
  return static_cast<SignedWide<T>>(static_cast<SignedWide<T>>(static_cast<Signed<T>>(a)) *
                                    static_cast<Signed<T>>(b));
}
struct MultiplySigned {
  template <class T>
  static void apply(Cpu& c, T value) {
    const SignedWide<T> product = signed_product<T>(get_reg<T>(c, kRax), value);
    const T low = static_cast<T>(product), high = static_cast<T>(product >> kBits<T>);
    set_product_flags<T>(c, low, product != static_cast<Signed<T>>(low));
    set_pair<T>(c, low, high);
  }
};

template <class Operation, class T>
const Op* one_reg(Cpu& c, const Op* op) {
  Operation::template apply<T>(c, get_reg<T>(c, op->src));
  US_NEXT(c, op);
}
template <class Operation, class T>
struct OneMem {
  static void apply(Cpu& c, const Op*, T value) { Operation::template apply<T>(c, value); }
};
struct Forms {
  Handler reg;
  ByPlace mem;
};
template <class Operation, class T>
constexpr Forms one_forms() {
  return {&one_reg<Operation, T>, kRead<T, OneMem<Operation, T>>};
}
template <class Operation>
constexpr std::array<Forms, 4> one_sizes() {
  return {one_forms<Operation, uint8_t>(), one_forms<Operation, uint16_t>(),
          one_forms<Operation, uint32_t>(), one_forms<Operation, uint64_t>()};
}
constexpr std::array<Forms, 4> kMultiply = one_sizes<Multiply>();
constexpr std::array<Forms, 4> kMultiplySigned = one_sizes<MultiplySigned>();

Selection select_one(const Insn& in, Op& op, const std::array<Forms, 4>& table) {
  const Forms& forms = table[size_index(in.size(0))];
  if (in.is_mem(0)) return {.fn = forms.mem[take_memory(op, in, 0)]};
  op.src = in.number(0);
  return {.fn = forms.reg, .pure = true};
}

// --- IMUL of two and three operands

template <class T, bool kFlags>
inline T truncated_product(Cpu& c, T a, T b) {
  if constexpr (!kFlags) return static_cast<T>(Wide<T>{a} * b);
  const SignedWide<T> product = signed_product<T>(a, b);
  const T low = static_cast<T>(product);
  set_product_flags<T>(c, low, product != static_cast<Signed<T>>(low));
  return low;
}
template <class T, bool kFlags>
const Op* two_reg(Cpu& c, const Op* op) {
  const T r = truncated_product<T, kFlags>(c, get_reg<T>(c, op->dst), get_reg<T>(c, op->src));
  set_reg<T>(c, op->dst, r);
  US_NEXT(c, op);
}
template <class T, bool kFlags>
const Op* three_reg(Cpu& c, const Op* op) {
  const T r = truncated_product<T, kFlags>(c, get_reg<T>(c, op->src), static_cast<T>(op->imm));
  set_reg<T>(c, op->dst, r);
  US_NEXT(c, op);
}
template <class T, bool kFlags>
struct TwoMem {
  static void apply(Cpu& c, const Op* op, T value) {
    set_reg<T>(c, op->dst, truncated_product<T, kFlags>(c, get_reg<T>(c, op->dst), value));
  }
};
template <class T, bool kFlags>
struct ThreeMem {
  static void apply(Cpu& c, const Op* op, T value) {
    set_reg<T>(c, op->dst, truncated_product<T, kFlags>(c, value, static_cast<T>(op->imm)));
  }
};
struct ProductForms {
  Handler two_reg, three_reg;
  ByPlace two_mem, three_mem;
};
template <class T, bool kFlags>
constexpr ProductForms product_forms() {
  return {&two_reg<T, kFlags>, &three_reg<T, kFlags>, kRead<T, TwoMem<T, kFlags>>,
          kRead<T, ThreeMem<T, kFlags>>};
}
// [16, 32, 64 bits][flags wanted]
constexpr std::array<std::array<ProductForms, 2>, 3> kProducts = {
    {{product_forms<uint16_t, false>(), product_forms<uint16_t, true>()},
     {product_forms<uint32_t, false>(), product_forms<uint32_t, true>()},
     {product_forms<uint64_t, false>(), product_forms<uint64_t, true>()}}};

Selection select_imul(const Insn& in, Op& op) {
  if (in.visible() == 1) return select_one(in, op, kMultiplySigned);
  const auto& [dead, live] = kProducts[size_index(in.size(0)) - 1];
  const bool three = in.visible() == 3;
  op.dst = in.number(0);
  if (three) op.imm = in.imm(2);
  if (in.is_mem(1)) {
    const unsigned place = take_memory(op, in, 1);
    if (three) return {.fn = live.three_mem[place], .fn_flags_dead = dead.three_mem[place]};
    return {.fn = live.two_mem[place], .fn_flags_dead = dead.two_mem[place]};
  }
  op.src = in.number(1);
  if (three) return {.fn = live.three_reg, .fn_flags_dead = dead.three_reg, .pure = true};
  return {.fn = live.two_reg, .fn_flags_dead = dead.two_reg, .pure = true};
}

// --- DIV, IDIV

// 64-bit dividends that fit one word are the rule, and a 128-bit division is a slow call.
template <class T>
inline bool divide_unsigned(Cpu& c, T divisor) {
  const Wide<T> dividend = get_pair<T>(c);
  if (divisor == 0 || static_cast<T>(dividend >> kBits<T>) >= divisor)
    return raise(c, kDivideError);
  if (static_cast<T>(dividend >> kBits<T>) == 0) {
    const T low = static_cast<T>(dividend);
    set_pair<T>(c, static_cast<T>(low / divisor), static_cast<T>(low % divisor));
  } else {
    set_pair<T>(c, static_cast<T>(dividend / divisor), static_cast<T>(dividend % divisor));
  }
  return true;
}
template <class T>
inline bool divide_signed(Cpu& c, T divisor) {
  const auto dividend = static_cast<SignedWide<T>>(get_pair<T>(c));
  const auto by = static_cast<Signed<T>>(divisor);
  // The most negative dividend cannot be divided by -1 even in double width.
  constexpr Wide<T> kMostNegative =
      static_cast<Wide<T>>(static_cast<Wide<T>>(1) << (2 * kBits<T> - 1));
  if (by == 0 || (by == -1 && static_cast<Wide<T>>(dividend) == kMostNegative))
    return raise(c, kDivideError);
  const auto quotient = static_cast<SignedWide<T>>(dividend / by);
  const auto remainder = static_cast<SignedWide<T>>(dividend % by);
  if (quotient != static_cast<Signed<T>>(quotient)) return raise(c, kDivideError);
  set_pair<T>(c, static_cast<T>(quotient), static_cast<T>(remainder));
  return true;
}
template <class T, bool kSigned>
inline bool divide(Cpu& c, T divisor) {
  return kSigned ? divide_signed<T>(c, divisor) : divide_unsigned<T>(c, divisor);
}
template <class T, bool kSigned>
bool divide_by_reg(Cpu& c, const Op& op) {
  return divide<T, kSigned>(c, get_reg<T>(c, op.src));
}
template <class T, bool kSigned>
bool divide_by_mem(Cpu& c, const Op& op) {
  const Address a = any_address(c, op, sizeof(T), Access::kRead);
  if (!a.ok) return false;
  const Loaded<T> divisor = load<T>(c, a.linear);
  return divisor.ok && divide<T, kSigned>(c, divisor.value);
}
template <bool kSigned>
constexpr std::array<std::array<Handler, 2>, 4> divide_sizes() {
  return {
      {{&call_op<divide_by_reg<uint8_t, kSigned>>, &call_op<divide_by_mem<uint8_t, kSigned>>},
       {&call_op<divide_by_reg<uint16_t, kSigned>>, &call_op<divide_by_mem<uint16_t, kSigned>>},
       {&call_op<divide_by_reg<uint32_t, kSigned>>, &call_op<divide_by_mem<uint32_t, kSigned>>},
       {&call_op<divide_by_reg<uint64_t, kSigned>>, &call_op<divide_by_mem<uint64_t, kSigned>>}}};
}
constexpr std::array<std::array<Handler, 2>, 4> kDivide[2] = {divide_sizes<false>(),
                                                              divide_sizes<true>()};

Selection select_divide(const Insn& in, Op& op, bool with_sign) {
  const bool memory = in.is_mem(0);
  if (memory) {
    take_memory(op, in, 0);
  } else {
    op.src = in.number(0);
  }
  return {.fn = kDivide[with_sign][size_index(in.size(0))][memory]};
}

}  // namespace

Selection select_multiply(const Insn& in, Op& op) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_MUL: return select_one(in, op, kMultiply);
    case ZYDIS_MNEMONIC_IMUL: return select_imul(in, op);
    case ZYDIS_MNEMONIC_DIV: return select_divide(in, op, false);
    case ZYDIS_MNEMONIC_IDIV: return select_divide(in, op, true);
    default: return {};
  }
}

}  // namespace us::hv
