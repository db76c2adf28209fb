// XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B. There is one processor, so LOCK needs nothing more.
#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

template <class T>
const Op* exchange_regs(Cpu& c, const Op* op) {
  const T a = get_reg<T>(c, op->dst), b = get_reg<T>(c, op->src);
  set_reg<T>(c, op->dst, b);
  set_reg<T>(c, op->src, a);
  US_NEXT(c, op);
}
template <class T>
struct ExchangeMem {
  static T modify(Cpu& c, const Op* op, T old) {
    const T value = get_reg<T>(c, op->src);
    set_reg<T>(c, op->src, old);
    return value;
  }
};

template <class T, bool kFlags>
const Op* add_exchange_regs(Cpu& c, const Op* op) {
  const T a = get_reg<T>(c, op->dst), b = get_reg<T>(c, op->src);
  const T sum = static_cast<T>(a + b);
  if constexpr (kFlags) set_flags_add<T>(c, a, b, sum);
  set_reg<T>(c, op->src, a);
  set_reg<T>(c, op->dst, sum);
  US_NEXT(c, op);
}
template <class T, bool kFlags>
struct AddExchangeMem {
  static T modify(Cpu& c, const Op* op, T old) {
    const T b = get_reg<T>(c, op->src);
    const T sum = static_cast<T>(old + b);
    if constexpr (kFlags) set_flags_add<T>(c, old, b, sum);
    set_reg<T>(c, op->src, old);
    return sum;
  }
};

// The accumulator is register 0 at every size (AL is byte offset 0).
template <class T>
inline T compare_exchange(Cpu& c, const Op* op, T old) {
  const T accumulator = get_reg<T>(c, kRax);
  set_flags_sub<T>(c, accumulator, old, static_cast<T>(accumulator - old));
  if (accumulator == old) return get_reg<T>(c, op->src);
  set_reg<T>(c, kRax, old);
  return old;
}
// A register destination that differs keeps all its bits; whether its upper half survives at 32
// bits the manual leaves open.
template <class T>
const Op* compare_exchange_regs(Cpu& c, const Op* op) {
  const T old = get_reg<T>(c, op->dst);
  const T value = compare_exchange<T>(c, op, old);
  if (zf(c)) set_reg<T>(c, op->dst, value);
  US_NEXT(c, op);
}
template <class T>
struct CompareExchangeMem {
  static T modify(Cpu& c, const Op* op, T old) { return compare_exchange<T>(c, op, old); }
};

struct Forms {
  Handler regs;
  ByPlace mem;
};
template <class T>
constexpr Forms exchange_forms() {
  return {&exchange_regs<T>, kModify<T, ExchangeMem<T>>};
}
template <class T, bool kFlags>
constexpr Forms add_forms() {
  return {&add_exchange_regs<T, kFlags>, kModify<T, AddExchangeMem<T, kFlags>>};
}
template <class T>
constexpr Forms compare_forms() {
  return {&compare_exchange_regs<T>, kModify<T, CompareExchangeMem<T>>};
}
using Sizes = std::array<Forms, 4>;
constexpr Sizes kExchange = {exchange_forms<uint8_t>(), exchange_forms<uint16_t>(),
                             exchange_forms<uint32_t>(), exchange_forms<uint64_t>()};
constexpr Sizes kAdd = {add_forms<uint8_t, true>(), add_forms<uint16_t, true>(),
                        add_forms<uint32_t, true>(), add_forms<uint64_t, true>()};
constexpr Sizes kAddDead = {add_forms<uint8_t, false>(), add_forms<uint16_t, false>(),
                            add_forms<uint32_t, false>(), add_forms<uint64_t, false>()};
constexpr Sizes kCompare = {compare_forms<uint8_t>(), compare_forms<uint16_t>(),
                            compare_forms<uint32_t>(), compare_forms<uint64_t>()};

Selection select_pair(const Insn& in, Op& op, const Sizes& table, const Sizes* dead) {
  const unsigned size = size_index(in.size(0));
  // XCHG may name its memory operand second.
  const unsigned memory = in.is_mem(1) ? 1 : 0;
  op.src = in.number(1 - memory);
  if (in.is_mem(memory)) {
    const unsigned place = take_memory(op, in, memory);
    return {.fn = table[size].mem[place],
            .fn_flags_dead = dead != nullptr ? (*dead)[size].mem[place] : nullptr};
  }
  op.dst = in.number(0);
  return {.fn = table[size].regs,
          .fn_flags_dead = dead != nullptr ? (*dead)[size].regs : nullptr,
          .pure = true};
}

// REX.B makes 90 XCHG R8, RAX, and F3 before it changes nothing; Zydis calls that PAUSE.
Selection select_pause_with_rex_b(const Insn& in, Op& op) {
  op.dst = 8;
  op.src = kRax;
  const unsigned bytes = in.raw.raw.rex.W != 0 ? 8 : in.has(ZYDIS_ATTRIB_HAS_OPERANDSIZE) ? 2 : 4;
  return {.fn = kExchange[size_index(bytes)].regs, .pure = true};
}

// ZF alone changes. SDM 2A "CMPXCHG8B/CMPXCHG16B".
void set_zf(Cpu& c, bool value) {
  const uint64_t others = arithmetic_flags(c) & ~flag::kZf;
  set_arithmetic_flags(c, others | (value ? flag::kZf : 0));
}

// Half is the type of each of the two register pairs' halves.
template <class Half>
bool compare_exchange_pair(Cpu& c, const Op& op) {
  constexpr unsigned kSize = 2 * sizeof(Half);
  const Address a = any_address(c, op, kSize, Access::kWrite);
  if (!a.ok) return false;
  if (kSize == 16 && (a.linear & 15) != 0) return raise(c, kGeneralProtection, 0);
  Half value[2];
  uint8_t* at = direct_write(c, a.linear, kSize);
  if (at != nullptr) {
    std::memcpy(value, at, kSize);
  } else if (!probe_write(c, a.linear, kSize) || !load_slow(c, a.linear, value, kSize)) {
    return false;
  }
  const bool equal =
      value[0] == static_cast<Half>(c.regs[kRax]) && value[1] == static_cast<Half>(c.regs[kRdx]);
  const Half wanted[2] = {static_cast<Half>(c.regs[kRbx]), static_cast<Half>(c.regs[kRcx])};
  const Half* stored = equal ? wanted : value;  // the store happens in both cases
  if (at != nullptr) {
    std::memcpy(at, stored, kSize);
  } else if (!store_slow(c, a.linear, stored, kSize)) {
    return false;
  }
  if (!equal) {
    c.regs[kRax] = value[0];
    c.regs[kRdx] = value[1];
  }
  set_zf(c, equal);
  return true;
}

}  // namespace

Selection select_exchange(const Insn& in, Op& op) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_XCHG: return select_pair(in, op, kExchange, nullptr);
    case ZYDIS_MNEMONIC_PAUSE: return select_pause_with_rex_b(in, op);
    case ZYDIS_MNEMONIC_XADD: return select_pair(in, op, kAdd, &kAddDead);
    case ZYDIS_MNEMONIC_CMPXCHG: return select_pair(in, op, kCompare, nullptr);
    case ZYDIS_MNEMONIC_CMPXCHG8B:
      take_memory(op, in, 0);
      return {.fn = &call_op<compare_exchange_pair<uint32_t>>};
    case ZYDIS_MNEMONIC_CMPXCHG16B:
      take_memory(op, in, 0);
      return {.fn = &call_op<compare_exchange_pair<uint64_t>>};
    default: return {};
  }
}

}  // namespace us::hv
