// How SSE and MMX instructions are put together. A row of a table names a mnemonic, the kinds of
// its operands, and handlers made of two parts:
//   a source L says where the second operand comes from (register or memory, how many bytes,
//     whether memory must be aligned) and yields it as a 128-bit or integer value;
//   a body B does the rest: apply(Cpu&, const Op*, value).
// Most bodies wrap a pure function F::f(d, s) around one host instruction. Floating-point ones are
// inline assembly, so that the order of operands (which decides which NaN survives) and the place
// relative to loads of MXCSR are exactly as written.
#pragma once

#include <cstdint>
#include <nmmintrin.h>
#include <span>

#include "hv/cpu/handler.h"
#include "hv/cpu/insn.h"
#include "hv/cpu/sse.h"

#ifndef US_TAIL
#define US_TAIL
#endif

namespace us::hv::sse {

using V = __m128i;

// Set in Op::extra when flat_address() reaches the memory operand.
constexpr uint8_t kFlatOperand = 1;
// Set in Op::imm, above the eight bits of the immediate: REX.W was there.
constexpr uint64_t kImmRexW = 0x100;

inline V get_xmm(const Cpu& c, uint8_t n) {
  return _mm_load_si128(reinterpret_cast<const V*>(&c.xmm[n]));
}
inline void set_xmm(Cpu& c, uint8_t n, V v) { _mm_store_si128(reinterpret_cast<V*>(&c.xmm[n]), v); }
inline uint64_t low64(V v) { return static_cast<uint64_t>(_mm_cvtsi128_si64(v)); }
inline V from64(uint64_t v) { return _mm_cvtsi64_si128(static_cast<long long>(v)); }
inline uint8_t imm8(const Op* op) { return static_cast<uint8_t>(op->imm); }

// --- MMX registers

// Any MMX instruction except EMMS: all registers valid, TOP = 0. SDM 3A table 12-2.
inline void enter_mmx(Cpu& c) {
  c.fpu.status &= static_cast<uint16_t>(~0x3800);
  c.fpu.valid = 0xff;
}
inline uint64_t get_mm(const Cpu& c, uint8_t n) { return c.fpu.reg[n].mantissa; }
// A write sets the sixteen bits above the register to ones. SDM 1 9.6.
inline void set_mm(Cpu& c, uint8_t n, uint64_t v) {
  c.fpu.reg[n].mantissa = v;
  c.fpu.reg[n].exponent = 0xffff;
}
// An x87 exception is waiting (status.ES) and comes as #MF. With CR0.NE = 0 it would leave through
// a pin this machine does not have.
inline bool x87_pending(const Cpu& c) {
  return US_UNLIKELY((c.fpu.status & 0x80) != 0) && (c.cr0 & cr0::kNe) != 0;
}
const Op* x87_pending_op(Cpu& c, const Op* op);  // raises #MF

// --- Sources

template <unsigned kSize, bool kMustAlign>
struct XmmSource {
  using Value = V;
  static constexpr unsigned kBytes = kSize;
  static constexpr bool kAligned = kMustAlign, kMemory = true;
  static V from_register(const Cpu& c, const Op* op) { return get_xmm(c, op->src); }
  static V from_memory(const uint8_t* at) {
    if constexpr (kSize == 16) return _mm_loadu_si128(reinterpret_cast<const V*>(at));
    if constexpr (kSize == 8) return from64(read_host<uint64_t>(at));
    if constexpr (kSize == 4) return _mm_cvtsi32_si128(read_host<int>(at));
    if constexpr (kSize == 2) return _mm_cvtsi32_si128(read_host<uint16_t>(at));
  }
};
using X128 = XmmSource<16, true>;
using X128Any = XmmSource<16, false>;
using X64 = XmmSource<8, false>;
using X32 = XmmSource<4, false>;
using X16 = XmmSource<2, false>;

// Reg: T is cut from the full general register (PINSRB and PINSRW too).
template <class T>
struct GprSource {
  using Value = T;
  static constexpr unsigned kBytes = sizeof(T);
  static constexpr bool kAligned = false, kMemory = true;
  static T from_register(const Cpu& c, const Op* op) { return static_cast<T>(c.regs[op->src]); }
  static T from_memory(const uint8_t* at) { return read_host<T>(at); }
};

template <unsigned kSize>
struct MmxSource {
  using Value = V;
  static constexpr unsigned kBytes = kSize;
  static constexpr bool kAligned = false, kMemory = true;
  static V from_register(const Cpu& c, const Op* op) { return from64(get_mm(c, op->src)); }
  static V from_memory(const uint8_t* at) { return XmmSource<kSize, false>::from_memory(at); }
};
using M64 = MmxSource<8>;
using M32 = MmxSource<4>;

// The immediate as the shift count of an instruction that also takes it from a register.
struct ImmSource {
  using Value = V;
  static constexpr bool kMemory = false;
  static V from_register(const Cpu&, const Op* op) { return _mm_cvtsi32_si128(imm8(op)); }
};

// --- Pure functions around one host instruction. d is the destination's old value, s the source.

// Which elements of a result are looked at for the underflow that masked arithmetic does not
// report: exact and tiny. SDM 1 11.5.2.5.
enum class Tiny : uint8_t { kNone, kPs, kPd, kSs, kSd, kByStep };

struct Silent {  // raises no SIMD floating-point exception
  static constexpr bool kRaises = false;
  static constexpr Tiny kTiny = Tiny::kNone;
};
template <Tiny kTinyElements>
struct Raising {
  static constexpr bool kRaises = true;
  static constexpr Tiny kTiny = kTinyElements;
};

#define US_SSE_INT(name, text)                \
  struct F_##name : Silent {                  \
    static V f(V d, V s) {                    \
      asm(text " %1, %0" : "+x"(d) : "x"(s)); \
      return d;                               \
    }                                         \
  };
#define US_SSE_INT1(name, text)               \
  struct F_##name : Silent {                  \
    static V f(V s) {                         \
      V d;                                    \
      asm(text " %1, %0" : "=x"(d) : "x"(s)); \
      return d;                               \
    }                                         \
  };
#define US_SSE_FP(name, text, tiny)                    \
  struct F_##name : Raising<Tiny::tiny> {              \
    static V f(V d, V s) {                             \
      asm volatile(text " %1, %0" : "+x"(d) : "x"(s)); \
      return d;                                        \
    }                                                  \
  };
#define US_SSE_FP1(name, text, tiny)                   \
  struct F_##name : Raising<Tiny::tiny> {              \
    static V f(V s) {                                  \
      V d;                                             \
      asm volatile(text " %1, %0" : "=x"(d) : "x"(s)); \
      return d;                                        \
    }                                                  \
  };

// --- Bodies

template <class F>
struct BodyOf {
  static constexpr bool kRaises = F::kRaises, kMmx = false;
  static constexpr Tiny kTiny = F::kTiny;
};

template <class F>
struct Binary : BodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    set_xmm(c, op->dst, F::f(get_xmm(c, op->dst), s));
  }
};
template <class F>
struct Unary : BodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    set_xmm(c, op->dst, F::f(s));
  }
};
template <class F>
struct BinaryImm : BodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    set_xmm(c, op->dst, F::f(get_xmm(c, op->dst), s, imm8(op)));
  }
};
template <class F>
struct UnaryImm : BodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    set_xmm(c, op->dst, F::f(s, imm8(op)));
  }
};
// To a general register, zero-extended from F's result type.
template <class F>
struct ToGpr : BodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    c.regs[op->dst] = F::f(s);
  }
};
template <class F>
struct ToGprImm : BodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    c.regs[op->dst] = F::f(s, imm8(op));
  }
};
// F does everything itself: flags, several destinations.
template <class F>
struct Whole : BodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    F::f(c, op, s);
  }
};

// --- Handlers of a source and a body

template <class L>
inline const uint8_t* direct_source(Cpu& c, uint64_t va) {
  if constexpr (L::kAligned) {
    // Tags are page addresses: keeping the low four bits finds misalignment with the same compare,
    // and what is aligned does not cross a page.
    const TlbEntry& e = tlb_entry(c, va);
    if (US_LIKELY(e.read_tag == (va & ~uint64_t{0xff0}))) return host_of(e, va);
    return nullptr;
  } else {
    return direct_read(c, va, L::kBytes);
  }
}

// The memory operand wherever it lies: guest memory or c.scratch[0]; null: reason recorded.
const uint8_t* load_operand(Cpu& c, const Op* op, unsigned size, bool aligned);
// Linear address of the memory operand for a store; checks what must be 16-byte aligned.
Address store_address(Cpu& c, const Op* op, unsigned size, bool aligned);

template <class L, class B>
const Op* from_register(Cpu& c, const Op* op) {
  if constexpr (B::kMmx)
    if (US_UNLIKELY(x87_pending(c))) US_TAIL return x87_pending_op(c, op);
  B::apply(c, op, L::from_register(c, op));
  US_NEXT(c, op);
}

template <class L, class B>
[[gnu::noinline, gnu::cold]] const Op* from_memory_slow(Cpu& c, const Op* op) {
  const uint8_t* at = load_operand(c, op, L::kBytes, L::kAligned);
  if (at == nullptr) return leave(c, op);
  B::apply(c, op, L::from_memory(at));
  US_NEXT(c, op);
}
template <class L, class B, bool kFlat>
const Op* from_memory(Cpu& c, const Op* op) {
  if constexpr (B::kMmx)
    if (US_UNLIKELY(x87_pending(c))) US_TAIL return x87_pending_op(c, op);
  if (uint64_t linear; quick_address<kFlat>(c, op, linear)) {
    const uint8_t* at = direct_source<L>(c, linear);
    if (US_LIKELY(at != nullptr)) {
      B::apply(c, op, L::from_memory(at));
      US_NEXT(c, op);
    }
  }
  US_TAIL return from_memory_slow<L, B>(c, op);
}

// The careful variants (Mode::kSseTraps): the same body between clearing the host's flags and
// looking at them; an unmasked exception takes back whatever the body wrote. SDM 1 11.5.
struct Kept {
  Xmm xmm;
  X87State::Reg mm;
  uint64_t gpr = 0, flag_result = 0, flag_aux = 0;
  uint32_t mxcsr = 0;
  uint16_t x87_status = 0, x87_valid = 0;
};
void begin_checked(Cpu& c, const Op& op, Kept& kept);
bool end_checked(Cpu& c, const Op& op, const Kept& kept, Tiny tiny);
// For a careful body of several steps (Tiny::kByStep): called after each with its result, says
// whether the step raised something unmasked, which ends the instruction. `earlier` gathers the
// flags of the steps so far, from 0.
bool step_raised(const Cpu& c, V result, Tiny tiny, bool last, uint32_t& earlier);

template <class L, class B>
bool checked_apply(Cpu& c, const Op& op, typename L::Value value) {
  Kept kept;
  begin_checked(c, op, kept);
  B::apply(c, &op, value);
  return end_checked(c, op, kept, B::kTiny);
}
template <class L, class B>
bool checked_register(Cpu& c, const Op& op) {
  if (B::kMmx && x87_pending(c)) return raise(c, kX87Error);
  return checked_apply<L, B>(c, op, L::from_register(c, &op));
}
template <class L, class B>
bool checked_memory(Cpu& c, const Op& op) {
  if (B::kMmx && x87_pending(c)) return raise(c, kX87Error);
  const uint8_t* at = load_operand(c, &op, L::kBytes, L::kAligned);
  return at != nullptr && checked_apply<L, B>(c, op, L::from_memory(at));
}

// Stores: P::produce(c, op) is the value, of type P::Value (16 bytes: V).
template <class P, bool kAligned>
[[gnu::noinline, gnu::cold]] const Op* to_memory_slow(Cpu& c, const Op* op) {
  const Address a = store_address(c, op, sizeof(typename P::Value), kAligned);
  if (!a.ok || !store_slow_as<typename P::Value>(c, a.linear, P::produce(c, op)))
    return leave(c, op);
  P::done(c);
  US_NEXT(c, op);
}
template <class P, bool kAligned, bool kFlat>
const Op* to_memory(Cpu& c, const Op* op) {
  if constexpr (P::kMmx)
    if (US_UNLIKELY(x87_pending(c))) US_TAIL return x87_pending_op(c, op);
  if (uint64_t linear; quick_address<kFlat>(c, op, linear)) {
    uint8_t* at = nullptr;
    if constexpr (kAligned) {
      const TlbEntry& e = tlb_entry(c, linear);
      if (US_LIKELY(e.write_tag == (linear & ~uint64_t{0xff0}))) at = host_of(e, linear);
    } else {
      at = direct_write(c, linear, sizeof(typename P::Value));
    }
    if (US_LIKELY(at != nullptr)) {
      write_host<typename P::Value>(at, P::produce(c, op));
      P::done(c);
      US_NEXT(c, op);
    }
  }
  US_TAIL return to_memory_slow<P, kAligned>(c, op);
}

// --- Tables

// What an operand is. kMem as a row's destination means a store; memory sources need no rows of
// their own.
enum class Kind : uint8_t { kNone, kXmm, kMmx, kGpr, kMem, kImm };

struct Forms {
  Handler reg = nullptr;
  Handler mem[2] = {};            // [1]: flat_address() reaches it
  Handler checked_reg = nullptr;  // null: cannot raise, the plain one serves
  Handler checked_mem = nullptr;
};

// Which of CR0.EM, CR0.TS, CR4.OSFXSR can refuse the instruction.
enum class Unit : uint8_t { kSse, kMmx, kBoth, kAlways };

struct Row {
  ZydisMnemonic mnemonic;
  Kind dst;
  Kind src;  // of the register (or immediate) form
  Forms forms;
  uint8_t width = 0;  // bytes the general register (or the memory in its place) must have; 0: any
  Unit unit = Unit::kSse;
  const Forms* by_imm = nullptr;  // handlers by immediate & imm_mask instead of `forms`
  uint8_t imm_mask = 0;
};

template <class L, class B>
constexpr Forms forms() {
  Forms f;
  f.reg = &from_register<L, B>;
  if constexpr (L::kMemory) {
    f.mem[0] = &from_memory<L, B, false>;
    f.mem[1] = &from_memory<L, B, true>;
  }
  if constexpr (B::kRaises) {
    f.checked_reg = &call_op<checked_register<L, B>>;
    f.checked_mem = &call_op<checked_memory<L, B>>;
  }
  return f;
}
// Register and memory forms that do different things.
constexpr Forms split_forms(Forms reg, Forms mem) {
  mem.reg = reg.reg;
  mem.checked_reg = reg.checked_reg;
  return mem;
}
// The careful variants from another body.
constexpr Forms with_checked(Forms plain, Forms careful) {
  plain.checked_reg = careful.checked_reg;
  plain.checked_mem = careful.checked_mem;
  return plain;
}
template <class P, bool kAligned = false>
constexpr Forms store_forms() {
  Forms f;
  f.mem[0] = &to_memory<P, kAligned, false>;
  f.mem[1] = &to_memory<P, kAligned, true>;
  return f;
}

// A row whose destination and source are XMM registers (or memory), the common kind.
#define US_ROW_XX(name, source, body) \
  { ZYDIS_MNEMONIC_##name, Kind::kXmm, Kind::kXmm, forms<source, body<F_##name>>() }

std::span<const Row> move_rows();
std::span<const Row> move_gpr_rows();
std::span<const Row> move_mmx_rows();
std::span<const Row> arithmetic_rows();
std::span<const Row> approximation_rows();
std::span<const Row> compare_rows();
std::span<const Row> convert_rows();
std::span<const Row> integer_rows();
std::span<const Row> shuffle_rows();
std::span<const Row> text_rows();
std::span<const Row> mmx_rows();
inline constexpr std::span<const Row> (*kAllRows[])() = {
    move_rows,          move_gpr_rows, move_mmx_rows, arithmetic_rows,
    approximation_rows, compare_rows,  convert_rows,  integer_rows,
    shuffle_rows,       text_rows,     mmx_rows};

// Raise #UD or #NM, whichever CR0 and CR4 ask for. SDM 3A 13.1, 12.1.
bool sse_off(Cpu& c, const Op& op);
bool mmx_off(Cpu& c, const Op& op);

// Instructions whose operands no row describes: MXCSR, fences, cache hints, MASKMOV, EMMS.
struct Special {
  ZydisMnemonic mnemonic;
  Unit unit;
  Handler fn;
  bool ends_block = false;
};
const Special* find_special(ZydisMnemonic mnemonic);  // null: none

// A body F_name<imm> around one host instruction whose immediate must be known at compile time.
#define US_IMMEDIATE_BODY(name, text)                                 \
  template <int kImm>                                                 \
  struct F_##name : Raising<Tiny::kNone> {                            \
    static V f(V d, V s) {                                            \
      asm volatile(text " %2, %1, %0" : "+x"(d) : "x"(s), "i"(kImm)); \
      return d;                                                       \
    }                                                                 \
  };

}  // namespace us::hv::sse
