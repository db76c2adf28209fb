// CMOVcc, SETcc. The condition is the low four bits of the opcode. SDM 2 appendix B.1.4.7.
#include <utility>

#include "hv/cpu/integer.h"

namespace us::hv {
namespace {

// A 32-bit CMOV clears the upper half even when it moves nothing, and a memory source is always
// read. SDM 2A "CMOVcc".
template <unsigned kCode, class T>
inline void move_if(Cpu& c, uint8_t dst, T value) {
  const T old = get_reg<T>(c, dst);
  set_reg<T>(c, dst, condition<kCode>(c) ? value : old);
}
template <unsigned kCode, class T>
const Op* move_reg_if(Cpu& c, const Op* op) {
  move_if<kCode, T>(c, op->dst, get_reg<T>(c, op->src));
  US_NEXT(c, op);
}
template <unsigned kCode, class T>
struct MoveMemIf {
  static void apply(Cpu& c, const Op* op, T value) { move_if<kCode, T>(c, op->dst, value); }
};
template <unsigned kCode>
const Op* set_reg_if(Cpu& c, const Op* op) {
  set_reg<uint8_t>(c, op->dst, condition<kCode>(c));
  US_NEXT(c, op);
}
template <unsigned kCode>
struct SetMemIf {
  static uint8_t produce(Cpu& c, const Op*) { return condition<kCode>(c); }
};

struct Forms {
  Handler reg;
  ByPlace mem;
};
constexpr auto kSixteen = std::make_index_sequence<16>{};
template <class T, size_t... kCodes>
constexpr std::array<Forms, 16> move_forms(std::index_sequence<kCodes...>) {
  return {{{&move_reg_if<kCodes, T>, kRead<T, MoveMemIf<kCodes, T>>}...}};
}
template <size_t... kCodes>
constexpr std::array<Forms, 16> set_forms(std::index_sequence<kCodes...>) {
  return {{{&set_reg_if<kCodes>, kWrite<uint8_t, SetMemIf<kCodes>>}...}};
}
constexpr std::array<std::array<Forms, 16>, 3> kMove = {
    move_forms<uint16_t>(kSixteen), move_forms<uint32_t>(kSixteen), move_forms<uint64_t>(kSixteen)};
constexpr std::array<Forms, 16> kSet = set_forms(kSixteen);

bool is_family(const Insn& in, unsigned opcode_high) {
  return in.raw.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
         in.raw.opcode_map == ZYDIS_OPCODE_MAP_0F && (in.raw.opcode & 0xf0) == opcode_high;
}

}  // namespace

Selection select_condition(const Insn& in, Op& op) {
  const unsigned code = in.raw.opcode & 0xf;
  if (is_family(in, 0x40)) {
    const Forms& forms = kMove[size_index(in.size(0)) - 1][code];
    op.dst = in.number(0);
    if (in.is_mem(1)) return {.fn = forms.mem[take_memory(op, in, 1)]};
    op.src = in.number(1);
    return {.fn = forms.reg, .pure = true};
  }
  if (is_family(in, 0x90)) {
    if (in.is_mem(0)) return {.fn = kSet[code].mem[take_memory(op, in, 0)]};
    op.dst = in.number(0);
    return {.fn = kSet[code].reg, .pure = true};
  }
  return {};
}

}  // namespace us::hv
