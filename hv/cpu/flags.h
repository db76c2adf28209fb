// Arithmetic flags, computed only when somebody reads them. Two words hold them:
//   flag_result: the result, sign-extended to 64 bits. ZF: it is zero. SF: bit 63. PF: its low
//   byte. flag_aux: bit 1 CF, bit 0 the carry into the top bit (so OF = bit 0 ^ bit 1), bit 4 AF,
//             bit 8 inverts PF and bit 9 inverts SF (for flags loaded as a whole, which need not
//             belong to any result).
// Undefined flags get one choice, the same on every host: AF is 0 after logic operations; the rest
// is said at each instruction. SDM 1 3.4.3.1.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "hv/cpu/state.h"

namespace us::hv {

constexpr uint64_t kAuxCarry = 2, kAuxCarryIn = 1, kAuxAdjust = 0x10, kAuxParity = 0x100,
                   kAuxSign = 0x200;

template <class T>
constexpr unsigned kBits = sizeof(T) * 8;

template <class T>
constexpr uint64_t sign_extend(T value) {
  return static_cast<uint64_t>(static_cast<int64_t>(static_cast<std::make_signed_t<T>>(value)));
}

// Flags of result = a + b (+ carry in). T is the unsigned operand type.
template <class T>
inline void set_flags_add(CpuState& c, T a, T b, T result) {
  // The carry out of each bit: a where a and b agree, else the complement of the result.
  const T differ = a ^ b;
  const T carries = static_cast<T>(result ^ (differ | (a ^ result)));
  c.flag_result = sign_extend(result);
  c.flag_aux = static_cast<uint64_t>(static_cast<T>(carries >> (kBits<T> - 2))) |
               (static_cast<T>(differ ^ result) & kAuxAdjust);
}

// Flags of result = a - b (- borrow in).
template <class T>
inline void set_flags_sub(CpuState& c, T a, T b, T result) {
  // The borrow out of each bit: b where a and b differ, else the result.
  const T differ = a ^ b;
  const T borrows = static_cast<T>(result ^ (differ & (b ^ result)));
  c.flag_result = sign_extend(result);
  c.flag_aux = static_cast<uint64_t>(static_cast<T>(borrows >> (kBits<T> - 2))) |
               (static_cast<T>(differ ^ result) & kAuxAdjust);
}

// AND, OR, XOR, TEST: CF = OF = 0, AF = 0.
template <class T>
inline void set_flags_logic(CpuState& c, T result) {
  c.flag_result = sign_extend(result);
  c.flag_aux = 0;
}

// The result decides SF, ZF, PF; CF, OF and AF are given.
template <class T>
inline void set_flags_parts(CpuState& c, T result, bool cf, bool of, bool af) {
  c.flag_result = sign_extend(result);
  c.flag_aux = (cf ? kAuxCarry : 0) | (cf != of ? kAuxCarryIn : 0) | (af ? kAuxAdjust : 0);
}

inline bool cf(const CpuState& c) { return (c.flag_aux >> 1) & 1; }
inline bool of(const CpuState& c) { return (c.flag_aux ^ (c.flag_aux >> 1)) & 1; }
inline bool zf(const CpuState& c) { return c.flag_result == 0; }
inline bool sf(const CpuState& c) { return ((c.flag_result >> 63) ^ (c.flag_aux >> 9)) & 1; }
inline bool af(const CpuState& c) { return (c.flag_aux >> 4) & 1; }
inline bool pf(const CpuState& c) {
  const unsigned odd = std::popcount(static_cast<uint8_t>(c.flag_result)) & 1;
  return (odd ^ 1 ^ (c.flag_aux >> 8)) & 1;
}

// Sets CF alone; the other five stay.
inline void set_cf(CpuState& c, bool value) {
  const bool overflow = of(c);
  c.flag_aux =
      (c.flag_aux & ~uint64_t{3}) | (value ? kAuxCarry : 0) | (value != overflow ? kAuxCarryIn : 0);
}

inline uint64_t arithmetic_flags(const CpuState& c) {
  return (cf(c) ? flag::kCf : 0) | (pf(c) ? flag::kPf : 0) | (af(c) ? flag::kAf : 0) |
         (zf(c) ? flag::kZf : 0) | (sf(c) ? flag::kSf : 0) | (of(c) ? flag::kOf : 0);
}

// Loads all six from RFLAGS bits, whatever their combination.
inline void set_arithmetic_flags(CpuState& c, uint64_t f) {
  const bool carry = f & flag::kCf, overflow = f & flag::kOf, zero = f & flag::kZf;
  c.flag_result = zero ? 0 : 1;  // parity of 0 is even, of 1 odd; both positive
  c.flag_aux = (carry ? kAuxCarry : 0) | (carry != overflow ? kAuxCarryIn : 0) |
               ((f & flag::kAf) ? kAuxAdjust : 0) | ((f & flag::kSf) ? kAuxSign : 0) |
               (((f & flag::kPf) != 0) != zero ? kAuxParity : 0);
}

inline uint64_t rflags(const CpuState& c) { return c.rflags_other | arithmetic_flags(c); }

// Condition codes by their 4-bit encoding. SDM 2 appendix B.1.4.7.
template <unsigned kCode>
inline bool condition(const CpuState& c) {
  constexpr unsigned kKind = kCode >> 1;
  bool value;
  if constexpr (kKind == 0) value = of(c);
  if constexpr (kKind == 1) value = cf(c);
  if constexpr (kKind == 2) value = zf(c);
  if constexpr (kKind == 3) value = (int{cf(c)} | int{zf(c)}) != 0;
  if constexpr (kKind == 4) value = sf(c);
  if constexpr (kKind == 5) value = pf(c);
  if constexpr (kKind == 6) value = sf(c) != of(c);
  if constexpr (kKind == 7) value = (int{zf(c)} | int{sf(c) != of(c)}) != 0;
  return value != static_cast<bool>(kCode & 1);
}

}  // namespace us::hv
