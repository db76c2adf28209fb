// MOV (general and segment registers, memory, immediates, moffs), MOVZX MOVSX MOVSXD, LEA, MOVBE,
// BSWAP, XLAT.
#include <algorithm>

#include "hv/cpu/debug.h"
#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

// --- MOV

template <class T>
const Op* move_reg_reg(Cpu& c, const Op* op) {
  set_reg<T>(c, op->dst, get_reg<T>(c, op->src));
  US_NEXT(c, op);
}
template <class T>
const Op* move_reg_imm(Cpu& c, const Op* op) {
  set_reg<T>(c, op->dst, static_cast<T>(op->imm));
  US_NEXT(c, op);
}
template <class T>
struct LoadReg {
  static void apply(Cpu& c, const Op* op, T value) { set_reg<T>(c, op->dst, value); }
};
template <class T>
struct StoreReg {
  static T produce(Cpu& c, const Op* op) { return get_reg<T>(c, op->src); }
};
template <class T>
struct StoreImm {
  static T produce(Cpu&, const Op* op) { return static_cast<T>(op->imm); }
};

struct MoveForms {
  Handler reg_reg, reg_imm;
  ByPlace load, store, store_imm;
};
template <class T>
constexpr MoveForms move_forms() {
  return {&move_reg_reg<T>, &move_reg_imm<T>, kRead<T, LoadReg<T>>, kWrite<T, StoreReg<T>>,
          kWrite<T, StoreImm<T>>};
}
constexpr std::array<MoveForms, 4> kMove = {move_forms<uint8_t>(), move_forms<uint16_t>(),
                                            move_forms<uint32_t>(), move_forms<uint64_t>()};

// moffs with a 64-bit address that no displacement holds: it is in imm.
uint64_t far_offset(const Cpu& c, const Op& op) {
  return op.imm + ((op.flags & Op::kBased64) ? c.seg[op.seg].base : 0);
}
bool load_far_offset(Cpu& c, const Op& op) {
  uint64_t value = 0;
  if (!load_slow(c, far_offset(c, op), &value, op.extra)) return false;
  std::memcpy(&c.regs[kRax], &value, op.extra);
  if (op.extra == 4) c.regs[kRax] = value;
  return true;
}
bool store_far_offset(Cpu& c, const Op& op) {
  return store_slow(c, far_offset(c, op), &c.regs[kRax], op.extra);
}

bool is_far_offset(const Insn& in, unsigned i) {
  const auto& disp = in.operands[i].mem.disp;
  return in.raw.address_width == 64 && disp.has_displacement &&
         disp.value != static_cast<int32_t>(disp.value);
}

bool is_segment(const Insn& in, unsigned i) {
  return in.is_reg(i) && in.reg_class(i) == ZYDIS_REGCLASS_SEGMENT;
}

Selection select_mov_store(const Insn& in, Op& op) {
  const MoveForms& forms = kMove[size_index(in.size(0))];
  const unsigned place = take_memory(op, in, 0);
  if (in.is_imm(1)) {
    op.imm = in.imm(1);
    return {.fn = forms.store_imm[place]};
  }
  op.src = in.number(1);
  if (!is_far_offset(in, 0)) return {.fn = forms.store[place]};
  op.imm = static_cast<uint64_t>(in.operands[0].mem.disp.value);
  op.extra = static_cast<uint8_t>(in.size(0));
  return {.fn = &call_op<store_far_offset>};
}

Selection select_mov_general(const Insn& in, Op& op) {
  if (in.is_mem(0)) return select_mov_store(in, op);
  const MoveForms& forms = kMove[size_index(in.size(0))];
  op.dst = in.number(0);
  if (in.is_mem(1)) {
    const unsigned place = take_memory(op, in, 1);
    if (!is_far_offset(in, 1)) return {.fn = forms.load[place]};
    op.imm = static_cast<uint64_t>(in.operands[1].mem.disp.value);
    op.extra = static_cast<uint8_t>(in.size(0));
    return {.fn = &call_op<load_far_offset>};
  }
  if (in.is_imm(1)) {
    // The immediate may come sign-extended beyond the operand, so 32 bits are cut here, once.
    op.imm = in.size(0) == 4 ? static_cast<uint32_t>(in.imm(1)) : in.imm(1);
    return {.fn = in.size(0) == 4 ? &move_reg_imm<uint64_t> : forms.reg_imm, .pure = true};
  }
  op.src = in.number(1);
  return {.fn = forms.reg_reg, .pure = true};
}

// --- MOV with segment registers; extra: the operand size of a register destination

bool store_segment_reg(Cpu& c, const Op& op) {
  const uint64_t selector = c.seg[op.src].selector;
  if (op.extra == 2) {
    set_reg<uint16_t>(c, op.dst, static_cast<uint16_t>(selector));
  } else {
    c.regs[op.dst] = selector;
  }
  return true;
}
struct StoreSelector {
  static uint16_t produce(Cpu& c, const Op* op) { return c.seg[op->src].selector; }
};
bool load_segment_value(Cpu& c, const Op& op, uint16_t selector) {
  if (!load_segment(c, static_cast<Seg>(op.dst), selector)) return false;
  if (op.dst == kSs) hold_events(c);
  return true;
}
bool load_segment_from_reg(Cpu& c, const Op& op) {
  return load_segment_value(c, op, static_cast<uint16_t>(c.regs[op.src]));
}
bool load_segment_from_memory(Cpu& c, const Op& op) {
  const Address a = any_address(c, op, 2, Access::kRead);
  if (!a.ok) return false;
  const Loaded<uint16_t> selector = load<uint16_t>(c, a.linear);
  return selector.ok && load_segment_value(c, op, selector.value);
}

bool load_segment_invalid(Cpu& c, const Op&) { return raise(c, kInvalidOpcode); }

uint8_t segment_number(ZydisRegister r) {
  switch (r) {
    case ZYDIS_REGISTER_ES: return kEs;
    case ZYDIS_REGISTER_CS: return kCs;
    case ZYDIS_REGISTER_SS: return kSs;
    case ZYDIS_REGISTER_FS: return kFs;
    case ZYDIS_REGISTER_GS: return kGs;
    default: return kDs;
  }
}

Selection select_mov_segment(const Insn& in, Op& op) {
  if (is_segment(in, 1)) {
    op.src = segment_number(in.reg(1));
    if (in.is_mem(0)) return {.fn = kWrite<uint16_t, StoreSelector>[take_memory(op, in, 0)]};
    op.dst = in.number(0);
    op.extra = static_cast<uint8_t>(in.size(0));
    return {.fn = &call_op<store_segment_reg>, .pure = true};
  }
  op.dst = segment_number(in.reg(0));
  if (op.dst == kCs) return {.fn = &call_op<load_segment_invalid>, .ends_block = true};
  if (in.is_mem(1)) {
    take_memory(op, in, 1);
    return {.fn = &end_op<load_segment_from_memory>, .ends_block = true};
  }
  op.src = in.number(1);
  return {.fn = &end_op<load_segment_from_reg>, .ends_block = true};
}

Selection select_mov(const Insn& in, Op& op) {
  if (is_segment(in, 0) || is_segment(in, 1)) return select_mov_segment(in, op);
  // Control and debug registers are the system family's.
  const bool mine =
      (in.is_mem(0) || in.is_gpr(0)) && (in.is_mem(1) || in.is_imm(1) || in.is_gpr(1));
  return mine ? select_mov_general(in, op) : Selection{};
}

// --- MOVZX, MOVSX, MOVSXD: To is the destination, From the source, both signed or both unsigned

template <class To, class From>
inline void extend_into(Cpu& c, uint8_t reg, From value) {
  set_reg<std::make_unsigned_t<To>>(c, reg, static_cast<std::make_unsigned_t<To>>(To{value}));
}
template <class To, class From>
const Op* extend_reg(Cpu& c, const Op* op) {
  using Bits = std::make_unsigned_t<From>;
  extend_into<To, From>(c, op->dst, static_cast<From>(get_reg<Bits>(c, op->src)));
  US_NEXT(c, op);
}
template <class To, class From>
struct ExtendMem {
  static void apply(Cpu& c, const Op* op, std::make_unsigned_t<From> value) {
    extend_into<To, From>(c, op->dst, static_cast<From>(value));
  }
};
struct ExtendForms {
  Handler reg;
  ByPlace mem;
};
template <class To, class From>
constexpr ExtendForms extend_forms() {
  return {&extend_reg<To, From>, kRead<std::make_unsigned_t<From>, ExtendMem<To, From>>};
}
// [to: 16, 32, 64 bits][from: 8, 16, 32 bits]. Zero extension to 64 bits is the 32-bit handler.
constexpr std::array<std::array<ExtendForms, 3>, 3> kZeroExtend = {
    {{extend_forms<uint16_t, uint8_t>(), extend_forms<uint16_t, uint16_t>(), {}},
     {extend_forms<uint32_t, uint8_t>(), extend_forms<uint32_t, uint16_t>(),
      extend_forms<uint32_t, uint32_t>()},
     {extend_forms<uint32_t, uint8_t>(), extend_forms<uint32_t, uint16_t>(),
      extend_forms<uint32_t, uint32_t>()}}};
constexpr std::array<std::array<ExtendForms, 3>, 3> kSignExtend = {
    {{extend_forms<int16_t, int8_t>(), extend_forms<int16_t, int16_t>(), {}},
     {extend_forms<int32_t, int8_t>(), extend_forms<int32_t, int16_t>(),
      extend_forms<int32_t, int32_t>()},
     {extend_forms<int64_t, int8_t>(), extend_forms<int64_t, int16_t>(),
      extend_forms<int64_t, int32_t>()}}};

Selection select_extend(const Insn& in, Op& op, bool with_sign) {
  const auto& table = with_sign ? kSignExtend : kZeroExtend;
  // MOVSXD with a 16-bit operand size moves 16 bits, whatever the decoder calls its source.
  const unsigned to = size_index(in.size(0));
  const unsigned from = std::min(size_index(in.size(1)), to);
  const ExtendForms& forms = table[to - 1][from];
  op.dst = in.number(0);
  if (in.is_mem(1)) return {.fn = forms.mem[take_memory(op, in, 1)]};
  op.src = in.number(1);
  return {.fn = forms.reg, .pure = true};
}

// --- LEA

template <class T>
const Op* lea_near(Cpu& c, const Op* op) {
  c.regs[op->dst] = static_cast<T>(near_address(c, op));
  US_NEXT(c, op);
}
template <class T, unsigned kScale>
const Op* lea_scaled(Cpu& c, const Op* op) {
  c.regs[op->dst] = static_cast<T>(near_address(c, op) + (c.regs[op->index] << kScale));
  US_NEXT(c, op);
}
// Any mixture of operand and address sizes.
template <class T>
const Op* lea_general(Cpu& c, const Op* op) {
  set_reg<T>(c, op->dst, static_cast<T>(segment_offset(c, op)));
  US_NEXT(c, op);
}

Selection select_lea(const Insn& in, Op& op) {
  set_memory(op, in, 1);
  op.dst = in.number(0);
  static constexpr Handler kGeneral[3] = {&lea_general<uint16_t>, &lea_general<uint32_t>,
                                          &lea_general<uint64_t>};
  static constexpr Handler kNear[2] = {&lea_near<uint32_t>, &lea_near<uint64_t>};
  static constexpr Handler kScaled[2][4] = {{&lea_scaled<uint32_t, 0>, &lea_scaled<uint32_t, 1>,
                                             &lea_scaled<uint32_t, 2>, &lea_scaled<uint32_t, 3>},
                                            {&lea_scaled<uint64_t, 0>, &lea_scaled<uint64_t, 1>,
                                             &lea_scaled<uint64_t, 2>, &lea_scaled<uint64_t, 3>}};
  const unsigned size = in.size(0);
  // A 32-bit result of a 32- or 64-bit address needs no separate cut of the address.
  if (size >= 4 && in.address_size() >= size) {
    const unsigned wide = size == 8;
    return {.fn = op.index == kZero ? kNear[wide] : kScaled[wide][op.scale], .pure = true};
  }
  return {.fn = kGeneral[size_index(size) - 1], .pure = true};
}

// --- Byte order, XLAT

template <class T>
inline T swap_bytes(T value) {
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}
template <class T>
const Op* bswap(Cpu& c, const Op* op) {
  set_reg<T>(c, op->dst, swap_bytes<T>(get_reg<T>(c, op->dst)));
  US_NEXT(c, op);
}
// Undefined by the manual; Intel parts clear the low 16 bits.
const Op* bswap16(Cpu& c, const Op* op) {
  set_reg<uint16_t>(c, op->dst, 0);
  US_NEXT(c, op);
}
Selection select_bswap(const Insn& in, Op& op) {
  static constexpr Handler kHandlers[3] = {&bswap16, &bswap<uint32_t>, &bswap<uint64_t>};
  op.dst = in.number(0);
  return {.fn = kHandlers[size_index(in.size(0)) - 1], .pure = true};
}

template <class T>
struct LoadSwapped {
  static void apply(Cpu& c, const Op* op, T value) { set_reg<T>(c, op->dst, swap_bytes<T>(value)); }
};
template <class T>
struct StoreSwapped {
  static T produce(Cpu& c, const Op* op) { return swap_bytes<T>(get_reg<T>(c, op->src)); }
};
Selection select_movbe(const Insn& in, Op& op) {
  static constexpr ByPlace kLoad[3] = {kRead<uint16_t, LoadSwapped<uint16_t>>,
                                       kRead<uint32_t, LoadSwapped<uint32_t>>,
                                       kRead<uint64_t, LoadSwapped<uint64_t>>};
  static constexpr ByPlace kStore[3] = {kWrite<uint16_t, StoreSwapped<uint16_t>>,
                                        kWrite<uint32_t, StoreSwapped<uint32_t>>,
                                        kWrite<uint64_t, StoreSwapped<uint64_t>>};
  const unsigned size = size_index(in.size(0)) - 1;
  if (in.is_mem(0)) {
    op.src = in.number(1);
    return {.fn = kStore[size][take_memory(op, in, 0)]};
  }
  op.dst = in.number(0);
  return {.fn = kLoad[size][take_memory(op, in, 1)]};
}

bool xlat(Cpu& c, const Op& op) {
  Op at = op;
  at.disp = static_cast<int32_t>(get_reg<uint8_t>(c, 0));
  const Address a = any_address(c, at, 1, Access::kRead);
  if (!a.ok) return false;
  const Loaded<uint8_t> value = load<uint8_t>(c, a.linear);
  if (value.ok) set_reg<uint8_t>(c, 0, value.value);
  return value.ok;
}
Selection select_xlat(const Insn& in, Op& op) {
  // The table operand is hidden; it has base RBX and no displacement.
  for (unsigned i = 0; i < in.raw.operand_count; ++i)
    if (in.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) set_memory(op, in, i);
  return {.fn = &call_op<xlat>};
}

}  // namespace

Selection select_move(const Insn& in, Op& op) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_MOV: return select_mov(in, op);
    case ZYDIS_MNEMONIC_MOVZX: return select_extend(in, op, false);
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD: return select_extend(in, op, true);
    case ZYDIS_MNEMONIC_LEA: return select_lea(in, op);
    case ZYDIS_MNEMONIC_BSWAP: return select_bswap(in, op);
    case ZYDIS_MNEMONIC_MOVBE: return select_movbe(in, op);
    case ZYDIS_MNEMONIC_XLAT: return select_xlat(in, op);
    default: return {};
  }
}

}  // namespace us::hv
