// How handlers are written and chained.
//
// A handler does its instruction and ends with US_NEXT(c, op). In optimised builds that is a tail
// call straight into the next handler, so a block runs as a chain of jumps; elsewhere (sanitizers,
// -O0) it returns the next op to a loop. A handler that cannot finish ends with `return leave(c,
// op)`: state is as before the instruction, and the run loop sees why in c.exit.
//
// For the tail call to be one, a handler keeps no object whose address is taken across US_NEXT;
// anything bigger goes into a function called through call_op / end_op below.
#pragma once

#include "hv/cpu/access.h"
#include "hv/cpu/cpu.h"
#include "hv/cpu/flags.h"
#include "hv/cpu/op.h"

#if defined(__OPTIMIZE__) && !defined(US_SANITIZED) && !defined(US_NO_TAIL_CALLS)
#if defined(__clang__)
#define US_TAIL [[clang::musttail]]
#else
#define US_TAIL  // GCC makes sibling calls of these at -O2; tests/unit/cpu checks the stack depth
#endif
#define US_GOTO(c, next) US_TAIL return (next)->fn((c), (next))
#else
#define US_TAIL  // no tail calls here: a plain return
#define US_GOTO(c, next) return (next)
#endif
#define US_NEXT(c, op) US_GOTO(c, (op) + 1)

namespace us::hv {

// Back to the run loop, before the instruction of `op` (c.exit already says why).
inline const Op* leave(Cpu& c, const Op* op) {
  c.rip = c.regs[kRipBase] + op->offset;
  c.instructions += op->ordinal;
  c.link_slot = nullptr;
  return nullptr;
}

// Back to the run loop, after the instruction that ends a block; c.rip is already the next address.
inline const Op* leave_done(Cpu& c, const Op* op, Block** link_slot = nullptr) {
  c.instructions += op->ordinal + 1;
  c.exit = Exit::kContinue;
  c.link_slot = link_slot;
  return nullptr;
}

inline uint64_t next_rip(const Cpu& c, const Op& op) {
  return c.regs[kRipBase] + op.offset + op.length;
}

// Effective address, 64-bit mode without a segment base: the common form.
inline uint64_t flat_address(const Cpu& c, const Op* op) {
  return c.regs[op->base] + (c.regs[op->index] << op->scale) +
         static_cast<uint64_t>(static_cast<int64_t>(op->disp));
}

// Offset within the segment, cut to the address size.
inline uint64_t segment_offset(const Cpu& c, const Op* op) {
  uint64_t offset = flat_address(c, op);
  if (op->flags & Op::kAddress32) offset = static_cast<uint32_t>(offset);
  if (op->flags & Op::kAddress16) offset = static_cast<uint16_t>(offset);
  return offset;
}

// Linear address of a general operand (FS/GS base, 32- and 16-bit modes): checks limits and rights
// outside 64-bit mode, canonical form is checked by the access. False: #GP or #SS recorded.
// Defined in segments.cc.
bool general_address(Cpu& c, const Op* op, unsigned size, Access access, uint64_t& linear);

// Both forms behind one name, for templates: kFlat selects at compile time. `ok` false: leave.
struct Address {
  uint64_t linear;
  bool ok;
};
[[gnu::noinline]] Address general_address_of(Cpu& c, const Op* op, unsigned size, Access access);
template <bool kFlat>
inline Address address_of(Cpu& c, const Op* op, unsigned size, Access access) {
  if constexpr (kFlat) {
    return {flat_address(c, op), true};
  } else {
    return general_address_of(c, op, size, access);
  }
}

// Register operands.
template <class T>
inline T get_reg(const Cpu& c, uint8_t number) {
  if constexpr (sizeof(T) == 1) {
    return reinterpret_cast<const uint8_t*>(c.regs)[number];
  } else {
    return static_cast<T>(c.regs[number]);
  }
}
// 32-bit writes clear the upper half, 8- and 16-bit ones keep the rest. SDM 1 3.4.1.1.
template <class T>
inline void set_reg(Cpu& c, uint8_t number, T value) {
  if constexpr (sizeof(T) == 1) {
    reinterpret_cast<uint8_t*>(c.regs)[number] = value;
  } else if constexpr (sizeof(T) == 2) {
    std::memcpy(&c.regs[number], &value, 2);
  } else {
    c.regs[number] = value;
  }
}

// The linear address when the fast path may compute it: the flat form, or a plain FS/GS base.
template <bool kFlat>
inline bool quick_address(const Cpu& c, const Op* op, uint64_t& linear) {
  linear = flat_address(c, op);
  if constexpr (kFlat) return true;
  if ((op->flags & Op::kBased64) == 0) return false;
  linear += c.seg[op->seg].base;
  return true;
}

// --- Memory skeletons
// ------------------------------------------------------------------------------- A call inside a
// handler costs pushes and pops on its fast path, so the three shapes of memory access are written
// once here: the fast handler makes no call, and on a TLB miss tail-calls its cold twin. A family
// gives the Body; T is the unsigned operand type.

// Body::apply(Cpu&, const Op*, T value): uses a value read from memory.
template <class T, bool kFlat, class Body>
[[gnu::noinline, gnu::cold]] const Op* read_op_slow(Cpu& c, const Op* op) {
  const Address a = address_of<kFlat>(c, op, sizeof(T), Access::kRead);
  if (!a.ok) return leave(c, op);
  const Loaded<T> loaded = load_slow_as<T>(c, a.linear);
  if (!loaded.ok) return leave(c, op);
  Body::apply(c, op, loaded.value);
  US_NEXT(c, op);
}
template <class T, bool kFlat, class Body>
const Op* read_op(Cpu& c, const Op* op) {
  if (uint64_t linear; quick_address<kFlat>(c, op, linear)) {
    const uint8_t* at = direct_read(c, linear, sizeof(T));
    if (US_LIKELY(at != nullptr)) {
      Body::apply(c, op, read_host<T>(at));
      US_NEXT(c, op);
    }
  }
  US_TAIL return read_op_slow<T, kFlat, Body>(c, op);
}

// Body::produce(Cpu&, const Op*) -> T: the value to store; no side effects.
template <class T, bool kFlat, class Body>
[[gnu::noinline, gnu::cold]] const Op* write_op_slow(Cpu& c, const Op* op) {
  const Address a = address_of<kFlat>(c, op, sizeof(T), Access::kWrite);
  if (!a.ok || !store_slow_as<T>(c, a.linear, Body::produce(c, op))) return leave(c, op);
  US_NEXT(c, op);
}
template <class T, bool kFlat, class Body>
const Op* write_op(Cpu& c, const Op* op) {
  if (uint64_t linear; quick_address<kFlat>(c, op, linear)) {
    uint8_t* at = direct_write(c, linear, sizeof(T));
    if (US_LIKELY(at != nullptr)) {
      write_host<T>(at, Body::produce(c, op));
      US_NEXT(c, op);
    }
  }
  US_TAIL return write_op_slow<T, kFlat, Body>(c, op);
}

// Body::modify(Cpu&, const Op*, T old) -> T: the new value; may set flags and registers, it is
// called only when the store cannot fail any more.
template <class T, bool kFlat, class Body>
[[gnu::noinline, gnu::cold]] const Op* modify_op_slow(Cpu& c, const Op* op) {
  const Address a = address_of<kFlat>(c, op, sizeof(T), Access::kWrite);
  if (!a.ok || !probe_write(c, a.linear, sizeof(T))) return leave(c, op);
  const Loaded<T> old = load_slow_as<T>(c, a.linear);
  if (!old.ok || !store_slow_as<T>(c, a.linear, Body::modify(c, op, old.value)))
    return leave(c, op);
  US_NEXT(c, op);
}
template <class T, bool kFlat, class Body>
const Op* modify_op(Cpu& c, const Op* op) {
  if (uint64_t linear; quick_address<kFlat>(c, op, linear)) {
    uint8_t* at = direct_write(c, linear, sizeof(T));
    if (US_LIKELY(at != nullptr)) {
      write_host<T>(at, Body::modify(c, op, read_host<T>(at)));
      US_NEXT(c, op);
    }
  }
  US_TAIL return modify_op_slow<T, kFlat, Body>(c, op);
}

// --- Everything else
// --------------------------------------------------------------------------------

// A handler from a plain function: `bool helper(Cpu&, const Op&)`, false if it raised something.
// For everything not hot, and everything that needs locals with addresses.
template <auto kHelper>
const Op* call_op(Cpu& c, const Op* op) {
  if (US_UNLIKELY(!kHelper(c, *op))) return leave(c, op);
  US_NEXT(c, op);
}

// As call_op for an instruction that ends its block: c.rip is preset to the next instruction's
// address and may be changed by the helper.
template <auto kHelper>
const Op* end_op(Cpu& c, const Op* op) {
  c.rip = next_rip(c, *op);
  if (US_UNLIKELY(!kHelper(c, *op))) return leave(c, op);
  return leave_done(c, op);
}

// An instruction that talks to the world (port I/O, MSRs on the bus, HLT): only the stepper runs
// it, so that the machine can look right after it.
template <auto kHelper>
const Op* step_only_op(Cpu& c, const Op* op) {
  if (!c.stepping) {
    needs_step(c);
    return leave(c, op);
  }
  c.rip = next_rip(c, *op);
  if (US_UNLIKELY(!kHelper(c, *op))) return leave(c, op);
  return leave_done(c, op);
}

}  // namespace us::hv
