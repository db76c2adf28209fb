#include "tests/unit/cpu_sse/encodings.h"

namespace us::test {
namespace {

bool wanted(const hv::Insn& in) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_CRC32:  // integer instructions of the same vintage
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_FISTTP:  // x87
    case ZYDIS_MNEMONIC_FXSAVE:  // both states
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT: return false;
    default: break;
  }
  if (in.raw.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  switch (in.raw.meta.isa_ext) {
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4: return true;
    default: return false;
  }
}

bool is_group(uint8_t map, uint8_t opcode) {
  return map == 0 && (opcode == 0x71 || opcode == 0x72 || opcode == 0x73 || opcode == 0xae ||
                      opcode == 0x18 || opcode == 0x0d || opcode == 0xc7);
}

std::vector<uint8_t> assemble(const Encoding& e, uint64_t choice) {
  std::vector<uint8_t> out;
  if (e.prefix != 0) out.push_back(e.prefix);
  uint8_t rex = e.rex_w ? 0x48 : 0;
  const unsigned reg = (choice >> 8) & 7, rm = (choice >> 11) & 7;
  if ((choice & 3) == 0) {
    rex |= 0x40 | ((choice & 4) != 0 ? 4 : 0);
    if (!e.memory && (choice & 8) != 0) rex |= 1;
  }
  if (rex != 0) out.push_back(rex);
  out.push_back(0x0f);
  if (e.map != 0) out.push_back(e.map);
  out.push_back(e.opcode);
  const unsigned field = e.extension >= 0 ? static_cast<unsigned>(e.extension) : reg;
  out.push_back(static_cast<uint8_t>((e.memory ? 0 : 0xc0) | field << 3 | (e.memory ? 3 : rm)));
  out.push_back(static_cast<uint8_t>(choice >> 16));  // an immediate, if there is one
  return out;
}

bool uses_reserved_register(const hv::Insn& in) {
  for (unsigned i = 0; i < in.visible(); ++i)
    if (in.is_reg(i) && in.is_gpr(i) && reserved_gpr(in.number(i))) return true;
  return false;
}

}  // namespace

std::vector<uint8_t> encode(const Encoding& e, Random& random, const Guest& guest) {
  for (;;) {
    std::vector<uint8_t> bytes = assemble(e, random());
    hv::Insn in;
    if (!guest.decode(bytes, in, hv::Mode{hv::Mode::kCode64})) continue;
    if (uses_reserved_register(in)) continue;
    bytes.resize(in.raw.length);
    return bytes;
  }
}

std::vector<Encoding> all_encodings(const Guest& guest) {
  std::vector<Encoding> found;
  for (const uint8_t prefix : {0x00, 0x66, 0xf3, 0xf2})
    for (const uint8_t map : {0x00, 0x38, 0x3a})
      for (unsigned opcode = 0; opcode < 256; ++opcode)
        for (unsigned form = 0; form < 4; ++form)
          for (int8_t extension = 0; extension < 8; ++extension) {
            Encoding e{prefix, map, static_cast<uint8_t>(opcode), (form & 1) != 0, (form & 2) != 0};
            if (map == 0 && (opcode == 0x38 || opcode == 0x3a)) continue;
            if (is_group(map, e.opcode)) e.extension = extension;
            hv::Insn in;
            // Without a group any register field serves; 0 may be a reserved one for nobody.
            if (guest.decode(assemble(e, 1), in, hv::Mode{hv::Mode::kCode64}) && wanted(in)) {
              e.mnemonic = in.mnemonic();
              found.push_back(e);
            }
            if (e.extension < 0) break;
          }
  return found;
}

}  // namespace us::test
