// Bodies on MMX registers. The host's own MMX registers are never touched (they are its x87
// registers): the instruction's XMM form runs on the low half of an XMM register.
#pragma once

#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {

template <class F>
struct MmxBodyOf {
  static constexpr bool kRaises = F::kRaises, kMmx = true;
  static constexpr Tiny kTiny = Tiny::kNone;
};

inline void finish_mmx(Cpu& c, const Op* op, V result) {
  set_mm(c, op->dst, low64(result));
  enter_mmx(c);
}

// The low 64 bits of the XMM form are the MMX form.
template <class F>
struct MmxBinary : MmxBodyOf<F> {
  static void apply(Cpu& c, const Op* op, V s) {
    finish_mmx(c, op, F::f(from64(get_mm(c, op->dst)), s));
  }
};
template <class F>
struct MmxUnary : MmxBodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    finish_mmx(c, op, F::f(s));
  }
};
template <class F>
struct MmxBinaryImm : MmxBodyOf<F> {
  template <class S>
  static void apply(Cpu& c, const Op* op, S s) {
    finish_mmx(c, op, F::f(from64(get_mm(c, op->dst)), s, imm8(op)));
  }
};
template <class F>
struct MmxUnaryImm : MmxBodyOf<F> {
  static void apply(Cpu& c, const Op* op, V s) { finish_mmx(c, op, F::f(s, imm8(op))); }
};
// Packs and horizontal sums: destination and source side by side in one register give the result
// in its low half.
template <class F>
struct MmxJoined : MmxBodyOf<F> {
  static void apply(Cpu& c, const Op* op, V s) {
    const V both = _mm_unpacklo_epi64(from64(get_mm(c, op->dst)), s);
    finish_mmx(c, op, F::f(both, both));
  }
};
// PUNPCKH of 64-bit registers: the high half of PUNPCKL.
template <class F>
struct MmxHigh : MmxBodyOf<F> {
  static void apply(Cpu& c, const Op* op, V s) {
    const V all = F::f(from64(get_mm(c, op->dst)), s);
    finish_mmx(c, op, _mm_unpackhi_epi64(all, all));
  }
};
// MMX source, general register destination.
template <class F>
struct MmxToGpr : MmxBodyOf<F> {
  static void apply(Cpu& c, const Op* op, V s) {
    c.regs[op->dst] = F::f(s);
    enter_mmx(c);
  }
};
template <class F>
struct MmxToGprImm : MmxBodyOf<F> {
  static void apply(Cpu& c, const Op* op, V s) {
    c.regs[op->dst] = F::f(s, imm8(op));
    enter_mmx(c);
  }
};
// MMX source, XMM destination.
template <class F>
struct MmxToXmm : MmxBodyOf<F> {
  static constexpr Tiny kTiny = F::kTiny;
  static void apply(Cpu& c, const Op* op, V s) {
    set_xmm(c, op->dst, F::f(get_xmm(c, op->dst), s));
    enter_mmx(c);
  }
};

}  // namespace us::hv::sse
