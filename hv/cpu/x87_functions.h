// The transcendental functions and remainders on register values: pure, given the control word.
// NaNs, unsupported operands and empty registers are the caller's business.
#pragma once

#include "hv/cpu/x87_wide.h"

namespace us::hv::x87 {

constexpr Reg kOne = {kIntegerBit, kBias, {}};

// Beyond 2^63 the trigonometric instructions only set C2. SDM 1 8.3.8.
bool in_trigonometric_range(const Reg& a);

Answer fsin(const Reg& a, uint16_t control);
Answer fcos(const Reg& a, uint16_t control);
Answer fptan(const Reg& a, uint16_t control);
Answer f2xm1(const Reg& a, uint16_t control);
Answer fyl2x(const Reg& x, const Reg& y, uint16_t control);    // y * log2(x)
Answer fyl2xp1(const Reg& x, const Reg& y, uint16_t control);  // y * log2(x + 1)
Answer fpatan(const Reg& x, const Reg& y, uint16_t control);   // the angle of (x, y)

// One step of FPREM (truncating) or FPREM1 (to nearest) of a by b; `conditions` gets C0-C3.
Answer remainder(const Reg& a, const Reg& b, uint16_t control, bool nearest, unsigned& conditions);

Answer invalid();

}  // namespace us::hv::x87
