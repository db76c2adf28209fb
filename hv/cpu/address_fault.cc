#include "hv/cpu/address_fault.h"

#include <Zydis/Zydis.h>

#include "hv/cpu/mmu.h"

namespace us::hv {
namespace {

constexpr unsigned kLongestInstruction = 15;

// The instruction at c.rip, as far as it can be read without side effects.
unsigned peek_instruction(const Cpu& c, uint8_t* bytes) {
  unsigned n = 0;
  for (; n < kLongestInstruction; ++n) {
    uint64_t phys;
    if (!translate_quietly(c, c.rip + n, phys) || !c.memory.contains(GuestPhys(phys), 1)) break;
    bytes[n] = *c.memory.host(GuestPhys(phys));
  }
  return n;
}

uint64_t register_value(const Cpu& c, ZydisRegister r) {
  return r == ZYDIS_REGISTER_NONE ? 0 : c.regs[static_cast<unsigned>(ZydisRegisterGetId(r))];
}

// Misalignment of an operand that must be aligned comes first, and stays #GP.
bool may_be_unaligned(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return true;
    default: return false;
  }
}

bool through_stack(const Cpu& c, const ZydisDecodedInstruction& in, const ZydisDecodedOperand& o) {
  if (o.type != ZYDIS_OPERAND_TYPE_MEMORY || o.mem.segment != ZYDIS_REGISTER_SS) return false;
  const uint64_t at = register_value(c, o.mem.base) + register_value(c, o.mem.index) * o.mem.scale +
                      static_cast<uint64_t>(o.mem.disp.value);
  if (o.size == 128 && (at & 15) != 0 && !may_be_unaligned(in.mnemonic)) return false;
  return !canonical(at) || !canonical(at + (o.size < 8 ? 0 : o.size / 8 - 1));
}

}  // namespace

void refine_address_fault(Cpu& c) {
  if (c.fault.vector != kGeneralProtection || c.fault.error != 0 || !c.mode.is64()) return;
  uint8_t bytes[kLongestInstruction];
  const unsigned size = peek_instruction(c, bytes);
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecodedInstruction in;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, size, &in, operands))) return;
  if (in.address_width != 64) return;
  for (unsigned i = 0; i < in.operand_count_visible; ++i) {
    if (through_stack(c, in, operands[i])) c.fault.vector = kStackFault;
  }
}

}  // namespace us::hv
