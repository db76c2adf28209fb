// Compare-and-jump pairs as one op: the jump decides on the operands themselves, and the flags are
// still left as the compare sets them. In a fused op imm holds the compare's immediate in its low
// half and the jump's target offset in its high half.
#include <array>
#include <utility>

#include "hv/cpu/control.h"
#include "hv/cpu/follow.h"
#include "hv/cpu/insn.h"
#include "hv/cpu/trace.h"

namespace us::hv {
namespace {

enum class Kind { kCompare, kTest };
enum class Form { kRegReg, kRegImm, kRegMem, kMemReg, kMemImm };

template <unsigned kCode, class T>
inline bool compare_holds(T a, T b) {
  using S = std::make_signed_t<T>;
  constexpr unsigned kWhat = kCode >> 1;
  const T difference = static_cast<T>(a - b);
  bool value = false;
  if constexpr (kWhat == 0) value = static_cast<S>((a ^ b) & (a ^ difference)) < 0;
  if constexpr (kWhat == 1) value = a < b;
  if constexpr (kWhat == 2) value = a == b;
  if constexpr (kWhat == 3) value = a <= b;
  if constexpr (kWhat == 4) value = static_cast<S>(difference) < 0;
  if constexpr (kWhat == 5) value = (std::popcount(static_cast<uint8_t>(difference)) & 1) == 0;
  if constexpr (kWhat == 6) value = static_cast<S>(a) < static_cast<S>(b);
  if constexpr (kWhat == 7) value = static_cast<S>(a) <= static_cast<S>(b);
  return value != static_cast<bool>(kCode & 1);
}

template <unsigned kCode, class T>
inline bool test_holds(T both) {
  using S = std::make_signed_t<T>;
  constexpr unsigned kWhat = kCode >> 1;
  bool value = false;  // CF = OF = 0
  if constexpr (kWhat == 2 || kWhat == 3) value = both == 0;
  if constexpr (kWhat == 4 || kWhat == 6) value = static_cast<S>(both) < 0;
  if constexpr (kWhat == 5) value = (std::popcount(static_cast<uint8_t>(both)) & 1) == 0;
  if constexpr (kWhat == 7) value = static_cast<S>(both) <= 0;
  return value != static_cast<bool>(kCode & 1);
}

inline uint64_t jump_offset(const Op* op) {
  return static_cast<uint64_t>(static_cast<int64_t>(op->imm) >> 32);
}

template <class T>
inline T immediate(const Op* op) {
  return static_cast<T>(static_cast<int64_t>(static_cast<int32_t>(op->imm)));
}

template <Kind kKind, unsigned kCode, class T>
inline bool decide(Cpu& c, T a, T b) {
  if constexpr (kKind == Kind::kCompare) {
    set_flags_sub<T>(c, a, b, static_cast<T>(a - b));
    return compare_holds<kCode, T>(a, b);
  } else {
    set_flags_logic<T>(c, a & b);
    return test_holds<kCode, T>(a & b);
  }
}

template <Kind kKind, Form kForm, unsigned kCode, class T>
inline bool decide_with_memory(Cpu& c, const Op* op, T memory) {
  if constexpr (kForm == Form::kRegMem) {
    return decide<kKind, kCode, T>(c, get_reg<T>(c, op->dst), memory);
  } else if constexpr (kForm == Form::kMemReg) {
    return decide<kKind, kCode, T>(c, memory, get_reg<T>(c, op->src));
  } else {
    return decide<kKind, kCode, T>(c, memory, immediate<T>(op));
  }
}

template <Kind kKind, Form kForm, unsigned kCode, class T, bool kTrace>
[[gnu::noinline, gnu::cold]] const Op* fused_slow(Cpu& c, const Op* op) {
  const Loaded<T> loaded = load_slow_as<T>(c, flat_address(c, op));
  if (!loaded.ok) return leave(c, op);
  const bool taken = decide_with_memory<kKind, kForm, kCode, T>(c, op, loaded.value);
  count_branch(c, op, 2);
  if constexpr (kTrace) trace_conditional(c, taken);
  US_BRANCH(c, op, taken, true, jump_offset(op), op->offset + op->length);
}

template <Kind kKind, Form kForm, unsigned kCode, class T, bool kTrace>
const Op* fused(Cpu& c, const Op* op) {
  bool taken;
  if constexpr (kForm == Form::kRegReg) {
    taken = decide<kKind, kCode, T>(c, get_reg<T>(c, op->dst), get_reg<T>(c, op->src));
  } else if constexpr (kForm == Form::kRegImm) {
    taken = decide<kKind, kCode, T>(c, get_reg<T>(c, op->dst), immediate<T>(op));
  } else {
    const uint8_t* at = direct_read(c, flat_address(c, op), sizeof(T));
    if (US_UNLIKELY(at == nullptr))
      US_TAIL return fused_slow<kKind, kForm, kCode, T, kTrace>(c, op);
    taken = decide_with_memory<kKind, kForm, kCode, T>(c, op, read_host<T>(at));
  }
  count_branch(c, op, 2);
  if constexpr (kTrace) trace_conditional(c, taken);
  US_BRANCH(c, op, taken, true, jump_offset(op), op->offset + op->length);
}

template <Kind kKind, Form kForm, class T, bool kTrace, size_t... kCodes>
constexpr auto codes(std::index_sequence<kCodes...>) {
  return std::array<Handler, 16>{&fused<kKind, kForm, kCodes, T, kTrace>...};
}
template <Kind kKind, Form kForm, bool kTrace>
constexpr std::array<std::array<Handler, 16>, 3> sizes() {
  constexpr auto kAll = std::make_index_sequence<16>{};
  return {codes<kKind, kForm, uint8_t, kTrace>(kAll), codes<kKind, kForm, uint32_t, kTrace>(kAll),
          codes<kKind, kForm, uint64_t, kTrace>(kAll)};
}
template <Kind kKind, bool kTrace>
constexpr std::array<std::array<std::array<Handler, 16>, 3>, 5> forms() {
  return {sizes<kKind, Form::kRegReg, kTrace>(), sizes<kKind, Form::kRegImm, kTrace>(),
          sizes<kKind, Form::kRegMem, kTrace>(), sizes<kKind, Form::kMemReg, kTrace>(),
          sizes<kKind, Form::kMemImm, kTrace>()};
}
// By whether branches are traced.
constexpr std::array kCompareHandlers = {forms<Kind::kCompare, false>(),
                                         forms<Kind::kCompare, true>()};
constexpr std::array kTestHandlers = {forms<Kind::kTest, false>(), forms<Kind::kTest, true>()};

int form_of(const Insn& in) {
  if (in.is_gpr(0) && in.is_gpr(1)) return static_cast<int>(Form::kRegReg);
  if (in.is_gpr(0) && in.is_imm(1)) return static_cast<int>(Form::kRegImm);
  if (in.is_gpr(0) && in.is_mem(1)) return static_cast<int>(Form::kRegMem);
  if (in.is_mem(0) && in.is_gpr(1)) return static_cast<int>(Form::kMemReg);
  if (in.is_mem(0) && in.is_imm(1)) return static_cast<int>(Form::kMemImm);
  return -1;
}

int size_index(unsigned bytes) {
  switch (bytes) {
    case 1: return 0;
    case 4: return 1;
    case 8: return 2;
    default: return -1;
  }
}

}  // namespace

bool fuse_compare_and_jump(Op& first, const Insn& in, const Insn& jump, Selection& out) {
  const bool compare = in.mnemonic() == ZYDIS_MNEMONIC_CMP;
  if (!in.mode.is64() || (!compare && in.mnemonic() != ZYDIS_MNEMONIC_TEST)) return false;
  const unsigned opcode = jump.raw.opcode;
  const bool jcc = jump.raw.opcode_map == ZYDIS_OPCODE_MAP_0F ? (opcode & 0xf0) == 0x80
                                                              : (opcode & 0xf0) == 0x70;
  const int form = form_of(in);
  const int size = size_index(in.size(0));
  if (!jcc || form < 0 || size < 0) return false;
  const bool memory = in.is_mem(0) || in.is_mem(1);
  if (memory && !in.flat()) return false;

  Op op{.offset = first.offset, .length = first.length, .ordinal = first.ordinal};
  if (in.is_gpr(0)) op.dst = in.number(0);
  if (in.is_gpr(1)) op.src = in.number(1);
  if (memory) set_memory(op, in, in.is_mem(0) ? 0 : 1);
  const uint64_t immediate = in.is_imm(1) ? in.imm(1) : 0;
  op.imm =
      (static_cast<uint64_t>(direct_target_offset(jump)) << 32) | static_cast<uint32_t>(immediate);
  first = op;
  const bool trace = (in.mode.bits & Mode::kTrace) != 0;
  const auto& table = (compare ? kCompareHandlers : kTestHandlers)[trace];
  out = {.fn = table[static_cast<size_t>(form)][static_cast<size_t>(size)][opcode & 0xf],
         .ends_block = true};
  return true;
}

}  // namespace us::hv
