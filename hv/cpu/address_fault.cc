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

// How far BT and its like go from their operand. SDM 2 "BT".
uint64_t bit_offset(const Cpu& c, const ZydisDecodedInstruction& in,
                    const ZydisDecodedOperand* operands) {
  const bool bit_string = in.meta.category == ZYDIS_CATEGORY_BITBYTE &&
                          in.operand_count_visible == 2 &&
                          operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
  if (!bit_string) return 0;
  auto bits = static_cast<int64_t>(register_value(c, operands[1].reg.value));
  if (in.operand_width == 16) bits = static_cast<int16_t>(bits);
  if (in.operand_width == 32) bits = static_cast<int32_t>(bits);
  return static_cast<uint64_t>((bits >> 3) & -int64_t{in.operand_width / 8});
}

bool through_stack(const Cpu& c, const ZydisDecodedInstruction& in,
                   const ZydisDecodedOperand* operands, const ZydisDecodedOperand& o) {
  if (o.type != ZYDIS_OPERAND_TYPE_MEMORY || o.mem.segment != ZYDIS_REGISTER_SS) return false;
  uint64_t at = register_value(c, o.mem.base) + register_value(c, o.mem.index) * o.mem.scale +
                static_cast<uint64_t>(o.mem.disp.value);
  at += bit_offset(c, in, operands);
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
  // Not allowed in the first place: LGDT and the like.
  const bool privileged = (in.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) != 0 ||
                          in.meta.category == ZYDIS_CATEGORY_SYSTEM;
  if (privileged && c.cpl != 0) return;
  for (unsigned i = 0; i < in.operand_count_visible; ++i) {
    if (through_stack(c, in, operands, operands[i])) c.fault.vector = kStackFault;
  }
}

}  // namespace us::hv
