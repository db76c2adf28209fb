// Shared by the integer_*.cc files: handler tables by operand size and by kind of memory operand,
// and the sub-selectors that select_integer asks.
#pragma once

#include <array>
#include <bit>

#include "hv/cpu/handler.h"
#include "hv/cpu/insn.h"

namespace us::hv {

// How a memory operand's address is computed. kNear: base + displacement and nothing else, which
// most operands of compiled code are; it saves the index, its shift and the segment.
enum class Addressing : uint8_t { kSegmented, kFlat, kNear };
using ByPlace = std::array<Handler, 3>;

// Fills the memory fields of `op` and says which of a ByPlace's handlers fits.
inline unsigned take_memory(Op& op, const Insn& in, unsigned operand) {
  set_memory(op, in, operand);
  if (!in.flat()) return static_cast<unsigned>(Addressing::kSegmented);
  return static_cast<unsigned>(op.index == kZero ? Addressing::kNear : Addressing::kFlat);
}

inline uint64_t near_address(const Cpu& c, const Op* op) {
  return c.regs[op->base] + static_cast<uint64_t>(static_cast<int64_t>(op->disp));
}

template <class T, class Body>
const Op* read_near_op(Cpu& c, const Op* op) {
  const uint8_t* at = direct_read(c, near_address(c, op), sizeof(T));
  if (US_LIKELY(at != nullptr)) {
    Body::apply(c, op, read_host<T>(at));
    US_NEXT(c, op);
  }
  US_TAIL return read_op_slow<T, true, Body>(c, op);
}
template <class T, class Body>
const Op* write_near_op(Cpu& c, const Op* op) {
  uint8_t* at = direct_write(c, near_address(c, op), sizeof(T));
  if (US_LIKELY(at != nullptr)) {
    write_host<T>(at, Body::produce(c, op));
    US_NEXT(c, op);
  }
  US_TAIL return write_op_slow<T, true, Body>(c, op);
}
template <class T, class Body>
const Op* modify_near_op(Cpu& c, const Op* op) {
  uint8_t* at = direct_write(c, near_address(c, op), sizeof(T));
  if (US_LIKELY(at != nullptr)) {
    write_host<T>(at, Body::modify(c, op, read_host<T>(at)));
    US_NEXT(c, op);
  }
  US_TAIL return modify_op_slow<T, true, Body>(c, op);
}

// The three skeletons of handler.h for one Body, at each place.
template <class T, class Body>
constexpr ByPlace kRead = {&read_op<T, false, Body>, &read_op<T, true, Body>,
                           &read_near_op<T, Body>};
template <class T, class Body>
constexpr ByPlace kWrite = {&write_op<T, false, Body>, &write_op<T, true, Body>,
                            &write_near_op<T, Body>};
template <class T, class Body>
constexpr ByPlace kModify = {&modify_op<T, false, Body>, &modify_op<T, true, Body>,
                             &modify_near_op<T, Body>};

// Index into tables by operand size: 1, 2, 4, 8 bytes are 0, 1, 2, 3.
inline unsigned size_index(unsigned bytes) {
  return static_cast<unsigned>(std::countr_zero(bytes));
}

// Linear address of any memory operand, for handlers that are plain functions.
inline Address any_address(Cpu& c, const Op& op, unsigned size, Access access) {
  if (c.mode.is64() && (op.flags & (Op::kBased64 | Op::kAddress32)) == 0)
    return {flat_address(c, &op), true};
  return general_address_of(c, &op, size, access);
}

// An instruction with nothing left to do.
inline const Op* nothing_op(Cpu& c, const Op* op) { US_NEXT(c, op); }

// MOV and its relatives (integer_move.cc), exchanges (integer_exchange.cc), arithmetic and logic
// (integer_alu.cc), shifts (integer_shift.cc), bits (integer_bits.cc), multiply and divide
// (integer_multiply.cc), conditional moves and sets (integer_condition.cc), all that has no
// operands to speak of (integer_misc.cc), and what 64-bit mode dropped (integer_legacy.cc).
Selection select_move(const Insn& in, Op& op);
Selection select_exchange(const Insn& in, Op& op);
Selection select_alu(const Insn& in, Op& op);
Selection select_shift(const Insn& in, Op& op);
Selection select_bits(const Insn& in, Op& op);
Selection select_multiply(const Insn& in, Op& op);
Selection select_condition(const Insn& in, Op& op);
Selection select_misc(const Insn& in, Op& op);
Selection select_legacy(const Insn& in, Op& op);

}  // namespace us::hv
