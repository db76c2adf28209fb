// Comparisons: CMPPS and its kin, COMIS, UCOMIS, PTEST.
#include <array>
#include <utility>

#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {
namespace {

// Immediate bits 2:0 count; one handler each.
US_IMMEDIATE_BODY(CMPPS, "cmpps")
US_IMMEDIATE_BODY(CMPPD, "cmppd")
US_IMMEDIATE_BODY(CMPSS, "cmpss")
US_IMMEDIATE_BODY(CMPSD, "cmpsd")

template <class L, template <int> class F, size_t... kImm>
constexpr std::array<Forms, 8> compare_forms(std::index_sequence<kImm...>) {
  return {forms<L, Binary<F<static_cast<int>(kImm)>>>()...};
}
template <class L, template <int> class F>
constexpr std::array<Forms, 8> kCompare = compare_forms<L, F>(std::make_index_sequence<8>());

// ZF, PF and CF as given; OF, SF and AF clear.
inline void set_compare_flags(Cpu& c, bool zero, bool parity, bool carry) {
  c.flag_result = zero ? 0 : 1;  // parity of 0 is even, of 1 odd
  c.flag_aux = (carry ? kAuxCarry | kAuxCarryIn : 0) | (parity != zero ? kAuxParity : 0);
}

#define US_COMI(name, text)                                         \
  struct F_##name : Raising<Tiny::kNone> {                          \
    static void f(Cpu& c, const Op* op, V s) {                      \
      const V d = get_xmm(c, op->dst);                              \
      bool zero, parity, carry;                                     \
      asm volatile(text " %4, %3"                                   \
                   : "=@ccz"(zero), "=@ccp"(parity), "=@ccc"(carry) \
                   : "x"(d), "x"(s));                               \
      set_compare_flags(c, zero, parity, carry);                    \
    }                                                               \
  };
US_COMI(COMISS, "comiss")
US_COMI(COMISD, "comisd")
US_COMI(UCOMISS, "ucomiss")
US_COMI(UCOMISD, "ucomisd")

struct F_PTEST : Silent {
  static void f(Cpu& c, const Op* op, V s) {
    const V d = get_xmm(c, op->dst);
    bool zero, carry;
    asm("ptest %3, %2" : "=@ccz"(zero), "=@ccc"(carry) : "x"(d), "x"(s));
    set_compare_flags(c, zero, false, carry);
  }
};

constexpr Row cmp_row(ZydisMnemonic m, const std::array<Forms, 8>& f) {
  return {m, Kind::kXmm, Kind::kXmm, {}, 0, Unit::kSse, f.data(), 7};
}

constexpr Row kRows[] = {
    cmp_row(ZYDIS_MNEMONIC_CMPPS, kCompare<X128, F_CMPPS>),
    cmp_row(ZYDIS_MNEMONIC_CMPPD, kCompare<X128, F_CMPPD>),
    cmp_row(ZYDIS_MNEMONIC_CMPSS, kCompare<X32, F_CMPSS>),
    cmp_row(ZYDIS_MNEMONIC_CMPSD, kCompare<X64, F_CMPSD>),
    US_ROW_XX(COMISS, X32, Whole),
    US_ROW_XX(COMISD, X64, Whole),
    US_ROW_XX(UCOMISS, X32, Whole),
    US_ROW_XX(UCOMISD, X64, Whole),
    US_ROW_XX(PTEST, X128, Whole),
};

}  // namespace

std::span<const Row> compare_rows() { return kRows; }

}  // namespace us::hv::sse
