// BT BTS BTR BTC, BSF BSR, POPCNT, CRC32.
#include <nmmintrin.h>

#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

// --- BT and its kin: CF is the bit, the other flags (undefined but ZF) stay. SDM 2A "BT".

struct Keep {
  static constexpr bool kWrites = false;
  template <class T>
  static T change(T value, T) {
    return value;
  }
};
struct Set {
  static constexpr bool kWrites = true;
  template <class T>
  static T change(T value, T bit) {
    return value | bit;
  }
};
struct Reset {
  static constexpr bool kWrites = true;
  template <class T>
  static T change(T value, T bit) {
    return static_cast<T>(value & ~bit);
  }
};
struct Complement {
  static constexpr bool kWrites = true;
  template <class T>
  static T change(T value, T bit) {
    return value ^ bit;
  }
};

template <class Operation, class T>
inline T test_bit(Cpu& c, T value, uint64_t index) {
  const unsigned n = static_cast<unsigned>(index) & (kBits<T> - 1);
  set_cf(c, (value >> n) & 1);
  return Operation::template change<T>(value, static_cast<T>(T{1} << n));
}

template <class Operation, class T, bool kImm>
const Op* bit_of_reg(Cpu& c, const Op* op) {
  const T r = test_bit<Operation, T>(c, get_reg<T>(c, op->dst), kImm ? op->imm : c.regs[op->src]);
  if constexpr (Operation::kWrites) set_reg<T>(c, op->dst, r);
  US_NEXT(c, op);
}
template <class Operation, class T>
struct BitOfMem {
  static T modify(Cpu& c, const Op* op, T old) { return test_bit<Operation, T>(c, old, op->imm); }
  static void apply(Cpu& c, const Op* op, T value) { modify(c, op, value); }
};

// A register bit offset reaches outside the operand: bytes from the operand's address to the unit
// that holds the bit.
template <class T>
inline uint64_t bit_unit(const Cpu& c, const Op* op) {
  const auto offset = static_cast<int64_t>(sign_extend(get_reg<T>(c, op->src)));
  return static_cast<uint64_t>((offset >> (std::countr_zero(kBits<T>))) *
                               static_cast<int64_t>(sizeof(T)));
}
template <class Operation, class T>
bool bit_string_slow(Cpu& c, const Op& op) {
  constexpr Access kAccess = Operation::kWrites ? Access::kWrite : Access::kRead;
  const uint64_t unit = bit_unit<T>(c, &op);
  Address a{};
  if (c.mode.is64() && (op.flags & Op::kAddress32) == 0) {
    a = any_address(c, op, sizeof(T), kAccess);
    a.linear += unit;
  } else {
    // The sum wraps at the address size, so the displacement may carry the unit.
    Op moved = op;
    moved.disp = static_cast<int32_t>(static_cast<uint32_t>(op.disp) + static_cast<uint32_t>(unit));
    a = any_address(c, moved, sizeof(T), kAccess);
  }
  if (!a.ok) return false;
  const uint64_t index = c.regs[op.src];
  if constexpr (Operation::kWrites) {
    return modify<T>(c, a.linear, [&](T old) { return test_bit<Operation, T>(c, old, index); });
  } else {
    const Loaded<T> value = load<T>(c, a.linear);
    if (value.ok) test_bit<Operation, T>(c, value.value, index);
    return value.ok;
  }
}
template <class Operation, class T>
const Op* bit_string(Cpu& c, const Op* op) {
  const uint64_t linear = flat_address(c, op) + bit_unit<T>(c, op);
  if constexpr (Operation::kWrites) {
    if (uint8_t* at = direct_write(c, linear, sizeof(T)); US_LIKELY(at != nullptr)) {
      write_host<T>(at, test_bit<Operation, T>(c, read_host<T>(at), c.regs[op->src]));
      US_NEXT(c, op);
    }
  } else {
    if (const uint8_t* at = direct_read(c, linear, sizeof(T)); US_LIKELY(at != nullptr)) {
      test_bit<Operation, T>(c, read_host<T>(at), c.regs[op->src]);
      US_NEXT(c, op);
    }
  }
  US_TAIL return call_op<bit_string_slow<Operation, T>>(c, op);
}

struct BitForms {
  Handler reg_reg, reg_imm, string_flat, string_segmented;
  ByPlace mem_imm;
};
template <class Operation, class T>
constexpr BitForms bit_forms() {
  BitForms f{};
  f.reg_reg = &bit_of_reg<Operation, T, false>;
  f.reg_imm = &bit_of_reg<Operation, T, true>;
  f.string_flat = &bit_string<Operation, T>;
  f.string_segmented = &call_op<bit_string_slow<Operation, T>>;
  if constexpr (Operation::kWrites) {
    f.mem_imm = kModify<T, BitOfMem<Operation, T>>;
  } else {
    f.mem_imm = kRead<T, BitOfMem<Operation, T>>;
  }
  return f;
}
template <class Operation>
constexpr std::array<BitForms, 3> bit_sizes() {
  return {bit_forms<Operation, uint16_t>(), bit_forms<Operation, uint32_t>(),
          bit_forms<Operation, uint64_t>()};
}
constexpr std::array<std::array<BitForms, 3>, 4> kBitTests = {
    bit_sizes<Keep>(), bit_sizes<Set>(), bit_sizes<Reset>(), bit_sizes<Complement>()};

Selection select_bit_test(const Insn& in, Op& op, unsigned operation) {
  const BitForms& forms = kBitTests[operation][size_index(in.size(0)) - 1];
  const bool by_imm = in.is_imm(1);
  if (by_imm) {
    op.imm = in.imm(1);
  } else {
    op.src = in.number(1);
  }
  if (in.is_mem(0)) {
    const unsigned place = take_memory(op, in, 0);
    if (by_imm) return {.fn = forms.mem_imm[place]};
    return {.fn = in.flat() ? forms.string_flat : forms.string_segmented};
  }
  op.dst = in.number(0);
  return {.fn = by_imm ? forms.reg_imm : forms.reg_reg, .pure = true};
}

// --- BSF, BSR, POPCNT: a result from one source

// ZF tells whether the source was zero, and then the destination keeps its value. SF and PF,
// undefined, are the source's; CF, OF and AF are 0.
struct ScanForward {
  template <class T>
  static void apply(Cpu& c, uint8_t dst, T source) {
    set_flags_logic<T>(c, source);
    if (source != 0) set_reg<T>(c, dst, static_cast<T>(std::countr_zero(source)));
  }
};
struct ScanReverse {
  template <class T>
  static void apply(Cpu& c, uint8_t dst, T source) {
    set_flags_logic<T>(c, source);
    if (source != 0)
      set_reg<T>(c, dst,
                 static_cast<T>(kBits<T> - 1 - static_cast<unsigned>(std::countl_zero(source))));
  }
};
struct Count {
  template <class T>
  static void apply(Cpu& c, uint8_t dst, T source) {
    // ZF alone may be set. The parity of a zero result would be even, so it is inverted.
    c.flag_result = source != 0;
    c.flag_aux = source != 0 ? 0 : kAuxParity;
    set_reg<T>(c, dst, static_cast<T>(std::popcount(source)));
  }
};

template <class Operation, class T>
const Op* from_reg(Cpu& c, const Op* op) {
  Operation::template apply<T>(c, op->dst, get_reg<T>(c, op->src));
  US_NEXT(c, op);
}
template <class Operation, class T>
struct FromMem {
  static void apply(Cpu& c, const Op* op, T value) {
    Operation::template apply<T>(c, op->dst, value);
  }
};
struct FromForms {
  Handler reg;
  ByPlace mem;
};
template <class Operation, class T>
constexpr FromForms from_forms() {
  return {&from_reg<Operation, T>, kRead<T, FromMem<Operation, T>>};
}
template <class Operation>
constexpr std::array<FromForms, 3> from_sizes() {
  return {from_forms<Operation, uint16_t>(), from_forms<Operation, uint32_t>(),
          from_forms<Operation, uint64_t>()};
}
constexpr std::array<std::array<FromForms, 3>, 3> kFrom = {
    from_sizes<ScanForward>(), from_sizes<ScanReverse>(), from_sizes<Count>()};

Selection select_from(const Insn& in, Op& op, const FromForms& forms) {
  op.dst = in.number(0);
  if (in.is_mem(1)) return {.fn = forms.mem[take_memory(op, in, 1)]};
  op.src = in.number(1);
  return {.fn = forms.reg, .pure = true};
}

// --- CRC32 (polynomial 0x11edc6f41, reflected). The result has 32 bits at every size.

struct Crc {
  template <class T>
  static void apply(Cpu& c, uint8_t dst, T value) {
    const auto crc = static_cast<uint32_t>(c.regs[dst]);
    if constexpr (sizeof(T) == 1) c.regs[dst] = _mm_crc32_u8(crc, value);
    if constexpr (sizeof(T) == 2) c.regs[dst] = _mm_crc32_u16(crc, value);
    if constexpr (sizeof(T) == 4) c.regs[dst] = _mm_crc32_u32(crc, value);
    if constexpr (sizeof(T) == 8) c.regs[dst] = _mm_crc32_u64(crc, value);
  }
};
constexpr std::array<FromForms, 4> kCrc = {from_forms<Crc, uint8_t>(), from_forms<Crc, uint16_t>(),
                                           from_forms<Crc, uint32_t>(),
                                           from_forms<Crc, uint64_t>()};

}  // namespace

Selection select_bits(const Insn& in, Op& op) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_BT: return select_bit_test(in, op, 0);
    case ZYDIS_MNEMONIC_BTS: return select_bit_test(in, op, 1);
    case ZYDIS_MNEMONIC_BTR: return select_bit_test(in, op, 2);
    case ZYDIS_MNEMONIC_BTC: return select_bit_test(in, op, 3);
    // Without BMI1 and ABM the F3 prefix of these two means nothing.
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_BSF: return select_from(in, op, kFrom[0][size_index(in.size(0)) - 1]);
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_BSR: return select_from(in, op, kFrom[1][size_index(in.size(0)) - 1]);
    case ZYDIS_MNEMONIC_POPCNT: return select_from(in, op, kFrom[2][size_index(in.size(0)) - 1]);
    case ZYDIS_MNEMONIC_CRC32: return select_from(in, op, kCrc[size_index(in.size(1))]);
    default: return {};
  }
}

}  // namespace us::hv
