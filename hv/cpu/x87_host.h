// Arithmetic on the host's own x87 under the guest's control word: IEEE operations give the same
// bits on every processor. SDM 1 8.3, 4.8.
//
// Each operation is a type with two functions. fast() runs with all exceptions masked and leaves
// the host's sticky flags alone; careful() runs under the guest's real masks: an unmasked exception
// only becomes a trap at the next waiting instruction, and FNCLEX is not one, so the host shows
// exactly what is (or is not) stored. SDM 1 8.7.
#pragma once

#include "hv/cpu/x87_state.h"

namespace us::hv::x87 {

constexpr uint16_t kHostControl = 0x37f;  // what the C++ run time expects

inline void host_control(uint16_t control) { asm volatile("fldcw %0" : : "m"(control)); }
inline void host_clear() { asm volatile("fnclex"); }

#define US_X87_HOST(Name, load, insn, unload)                                              \
  struct Name {                                                                            \
    static uint16_t fast(const void* a, const void* b, void* out) {                        \
      uint16_t sw;                                                                         \
      asm volatile(load "\n\t" insn "\n\tfnstsw %0\n\t" unload                             \
                   : "=a"(sw)                                                              \
                   : "r"(a), "r"(b), "r"(out)                                              \
                   : "memory", "st", "st(1)", "st(2)");                                    \
      return sw;                                                                           \
    }                                                                                      \
    static uint16_t careful(uint16_t control, const void* a, const void* b, void* out) {   \
      uint16_t sw;                                                                         \
      asm volatile("fninit\n\tfldcw %4\n\t" load "\n\t" insn                               \
                   "\n\tfnstsw %0\n\tfnclex\n\tfldcw %5\n\t" unload "\n\tfninit"           \
                   : "=a"(sw)                                                              \
                   : "r"(a), "r"(b), "r"(out), "m"(control), "m"(kMaskAll)                 \
                   : "memory", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", \
                     "st(7)");                                                             \
      return sw;                                                                           \
    }                                                                                      \
  };
constexpr uint16_t kMaskAll = 0x37f;

// Two registers: ST is a, ST(1) is b.
#define US_X87_BINARY(Name, insn) \
  US_X87_HOST(Name, "fldt (%2)\n\tfldt (%1)", insn, "fstpt (%3)\n\tfstp %%st(0)")
// ST is a; b is a memory operand of the instruction's own format (or unused).
#define US_X87_MEMORY(Name, insn) US_X87_HOST(Name, "fldt (%1)", insn, "fstpt (%3)")

US_X87_BINARY(Add, "fadd %%st(1), %%st")
US_X87_BINARY(Mul, "fmul %%st(1), %%st")
US_X87_BINARY(Sub, "fsub %%st(1), %%st")
US_X87_BINARY(SubR, "fsubr %%st(1), %%st")
US_X87_BINARY(Div, "fdiv %%st(1), %%st")
US_X87_BINARY(DivR, "fdivr %%st(1), %%st")
US_X87_BINARY(Com, "fcom %%st(1)")
US_X87_BINARY(UCom, "fucom %%st(1)")
US_X87_BINARY(Scale, "fscale")
US_X87_MEMORY(Sqrt, "fsqrt")
US_X87_MEMORY(Round, "frndint")
US_X87_MEMORY(Test, "ftst")

#define US_X87_FORMAT(Suffix, name, s)               \
  US_X87_MEMORY(Add##Suffix, name "add" s " (%2)")   \
  US_X87_MEMORY(Mul##Suffix, name "mul" s " (%2)")   \
  US_X87_MEMORY(Sub##Suffix, name "sub" s " (%2)")   \
  US_X87_MEMORY(SubR##Suffix, name "subr" s " (%2)") \
  US_X87_MEMORY(Div##Suffix, name "div" s " (%2)")   \
  US_X87_MEMORY(DivR##Suffix, name "divr" s " (%2)") \
  US_X87_MEMORY(Com##Suffix, name "com" s " (%2)")
US_X87_FORMAT(F32, "f", "s")
US_X87_FORMAT(F64, "f", "l")
US_X87_FORMAT(I16, "fi", "s")
US_X87_FORMAT(I32, "fi", "l")

// Conversions from memory: b is read, the value comes out as a register image.
US_X87_HOST(LoadF32, "", "flds (%2)", "fstpt (%3)")
US_X87_HOST(LoadF64, "", "fldl (%2)", "fstpt (%3)")
US_X87_HOST(LoadI16, "", "filds (%2)", "fstpt (%3)")
US_X87_HOST(LoadI32, "", "fildl (%2)", "fstpt (%3)")
US_X87_HOST(LoadI64, "", "fildll (%2)", "fstpt (%3)")

// Conversions to memory: a is the register, out the destination. The popping ones leave nothing on
// the host's stack when fast (then nothing is unmasked), and FNINIT cleans up when careful.
US_X87_HOST(StoreF32, "fldt (%1)", "fsts (%3)", "fstp %%st(0)")
US_X87_HOST(StoreF64, "fldt (%1)", "fstl (%3)", "fstp %%st(0)")
US_X87_HOST(StoreI16, "fldt (%1)", "fists (%3)", "fstp %%st(0)")
US_X87_HOST(StoreI32, "fldt (%1)", "fistl (%3)", "fstp %%st(0)")
US_X87_HOST(StoreI64, "fldt (%1)", "fistpll (%3)", "")
US_X87_HOST(StoreBcd, "fldt (%1)", "fbstp (%3)", "")
US_X87_HOST(TruncateI16, "fldt (%1)", "fisttps (%3)", "")
US_X87_HOST(TruncateI32, "fldt (%1)", "fisttpl (%3)", "")
US_X87_HOST(TruncateI64, "fldt (%1)", "fisttpll (%3)", "")

#undef US_X87_FORMAT
#undef US_X87_MEMORY
#undef US_X87_BINARY
#undef US_X87_HOST

template <class Operation>
uint16_t host_fast(uint16_t control, const void* a, const void* b, void* out) {
  const auto masked = static_cast<uint16_t>(control | kAllExceptions);
  if (US_LIKELY(masked == kHostControl)) return Operation::fast(a, b, out);
  host_control(masked);
  const uint16_t sw = Operation::fast(a, b, out);
  host_control(kHostControl);
  return sw;
}

// Runs the operation under `control`; `out` gets the result (unchanged or meaningless if an
// unmasked exception forbids one). Returns the host's status word, whose C1 and exception flags are
// of this operation alone; flags already set in the guest may or may not be among them when all are
// masked.
template <class Operation>
uint16_t run_host(const X87State& f, uint16_t control, const void* a, const void* b, void* out) {
  if (US_UNLIKELY((control & kAllExceptions) != kAllExceptions))
    return Operation::careful(static_cast<uint16_t>(control & 0xf3f), a, b, out);
  control &= 0xf3f;
  control |= 0x40;
  const uint16_t sw = host_fast<Operation>(control, a, b, out);
  if (US_LIKELY((sw & ~f.status & kAllExceptions) == 0)) return sw;
  // A new flag, or one that other code of this thread left behind: once more from clean flags.
  host_clear();
  const uint16_t exact = host_fast<Operation>(control, a, b, out);
  host_clear();
  return exact;
}

}  // namespace us::hv::x87
