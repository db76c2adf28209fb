// The parts of the x87 opcode map, each answered by one x87_*.cc: by the low three bits of the
// first opcode byte (D8 is 0, DF is 7), the ModRM reg field and, for register forms, its rm field.
// Null: no such instruction. SDM 2 appendix A.5.
#pragma once

#include "hv/cpu/x87_state.h"

namespace us::hv::x87 {

Handler memory_arithmetic(unsigned escape, unsigned reg);  // D8, DA, DC, DE
Handler register_arithmetic(unsigned escape, unsigned reg, unsigned rm);
Handler register_compare(unsigned escape, unsigned reg, unsigned rm);
Handler memory_move(unsigned escape, unsigned reg);  // D9, DB, DD, DF
Handler register_move(unsigned escape, unsigned reg, unsigned rm);
Handler memory_control(unsigned escape, unsigned reg);
Handler register_control(unsigned escape, unsigned reg, unsigned rm);
Handler rounding_function(unsigned rm);                 // of D9 /7: FSQRT, FRNDINT, FSCALE
Handler remainder_function(unsigned reg, unsigned rm);  // D9 F4 F5 F8: FXTRACT, FPREM1, FPREM
Handler transcendental(unsigned reg, unsigned rm);      // D9 F0-F3, F9, FB, FE, FF

// Bit 0 of Op::extra, set by the selector: flat_address() is the linear address.
constexpr uint8_t kFlat = 1;
// Bits 1-2 of Op::extra: log2 of the operand size, for the environment's layouts.
constexpr uint8_t kSizeShift = 1;

inline bool operand_address(Cpu& c, const Op& op, unsigned size, Access access, uint64_t& linear) {
  if (US_LIKELY((op.extra & kFlat) != 0)) {
    linear = flat_address(c, &op);
    return true;
  }
  const Address a = address_of<false>(c, &op, size, access);
  linear = a.linear;
  return a.ok;
}

// The memory operand of an instruction; false: fault recorded.
template <class T>
bool load_operand(Cpu& c, const Op& op, T& value) {
  uint64_t linear;
  if (!operand_address(c, op, sizeof(T), Access::kRead, linear)) return false;
  const Loaded<T> loaded = load<T>(c, linear);
  value = loaded.value;
  return loaded.ok;
}
template <class T>
[[nodiscard]] bool store_operand(Cpu& c, const Op& op, T value) {
  uint64_t linear;
  return operand_address(c, op, sizeof(T), Access::kWrite, linear) && store<T>(c, linear, value);
}
// Any number of bytes: either all are stored or none. x87_control.cc.
bool load_bytes(Cpu& c, const Op& op, void* out, unsigned size);
[[nodiscard]] bool store_bytes(Cpu& c, const Op& op, const void* in, unsigned size);
// The same at a linear address.
bool load_range(Cpu& c, uint64_t linear, void* out, unsigned size);
[[nodiscard]] bool store_range(Cpu& c, uint64_t linear, const void* in, unsigned size);

}  // namespace us::hv::x87
