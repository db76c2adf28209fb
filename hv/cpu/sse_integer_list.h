// Packed-integer instructions that exist on XMM and on MMX registers, each one host instruction.
#pragma once

#include "hv/cpu/sse_handlers.h"

namespace us::hv::sse {

// The MMX form is the low half of the XMM form.
// clang-format off
#define US_INTEGER_BINARY(X)                                                              \
  X(PADDB, "paddb") X(PADDW, "paddw") X(PADDD, "paddd") X(PADDQ, "paddq")                 \
  X(PADDSB, "paddsb") X(PADDSW, "paddsw") X(PADDUSB, "paddusb") X(PADDUSW, "paddusw")     \
  X(PSUBB, "psubb") X(PSUBW, "psubw") X(PSUBD, "psubd") X(PSUBQ, "psubq")                 \
  X(PSUBSB, "psubsb") X(PSUBSW, "psubsw") X(PSUBUSB, "psubusb") X(PSUBUSW, "psubusw")     \
  X(PAND, "pand") X(PANDN, "pandn") X(POR, "por") X(PXOR, "pxor") X(PCMPEQB, "pcmpeqb")   \
  X(PCMPEQW, "pcmpeqw") X(PCMPEQD, "pcmpeqd") X(PCMPGTB, "pcmpgtb") X(PCMPGTW, "pcmpgtw") \
  X(PCMPGTD, "pcmpgtd") X(PMADDWD, "pmaddwd") X(PMULHW, "pmulhw") X(PMULLW, "pmullw")     \
  X(PMULHUW, "pmulhuw") X(PMULUDQ, "pmuludq") X(PAVGB, "pavgb") X(PAVGW, "pavgw")         \
  X(PMAXUB, "pmaxub") X(PMINUB, "pminub") X(PMAXSW, "pmaxsw") X(PMINSW, "pminsw")         \
  X(PSADBW, "psadbw") X(PSIGNB, "psignb") X(PSIGNW, "psignw") X(PSIGND, "psignd")         \
  X(PMADDUBSW, "pmaddubsw") X(PMULHRSW, "pmulhrsw")
// clang-format on

#define US_INTEGER_UNARY(X) X(PABSB, "pabsb") X(PABSW, "pabsw") X(PABSD, "pabsd")

// Shifts by a register, memory or immediate count.
// clang-format off
#define US_INTEGER_SHIFT(X)                                               \
  X(PSLLW, "psllw") X(PSLLD, "pslld") X(PSLLQ, "psllq") X(PSRLW, "psrlw") \
  X(PSRLD, "psrld") X(PSRLQ, "psrlq") X(PSRAW, "psraw") X(PSRAD, "psrad")
// clang-format on

// Narrowing and horizontal: the MMX form works on destination and source side by side.
// clang-format off
#define US_INTEGER_JOINED(X)                                                        \
  X(PACKSSWB, "packsswb") X(PACKSSDW, "packssdw") X(PACKUSWB, "packuswb")           \
  X(PHADDW, "phaddw") X(PHADDD, "phaddd") X(PHADDSW, "phaddsw") X(PHSUBW, "phsubw") \
  X(PHSUBD, "phsubd") X(PHSUBSW, "phsubsw")
// clang-format on

// clang-format off
#define US_INTEGER_UNPACK_LOW(X)                                                \
  X(PUNPCKLBW, "punpcklbw") X(PUNPCKLWD, "punpcklwd") X(PUNPCKLDQ, "punpckldq")
// clang-format on

US_INTEGER_BINARY(US_SSE_INT)
US_INTEGER_UNARY(US_SSE_INT1)
US_INTEGER_SHIFT(US_SSE_INT)
US_INTEGER_JOINED(US_SSE_INT)
US_INTEGER_UNPACK_LOW(US_SSE_INT)

}  // namespace us::hv::sse
