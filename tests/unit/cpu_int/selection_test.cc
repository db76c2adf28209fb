// Every encoding of the integer, string and stack families finds a handler, in every mode.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <set>
#include <string>
#include <vector>

#include "hv/cpu/insn.h"

namespace us::test {
namespace {

struct ModeCase {
  const char* name;
  ZydisMachineMode machine;
  ZydisStackWidth stack;
  uint32_t bits;
};
constexpr ModeCase kModes[] = {
    {"64-bit", ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64, hv::Mode::kCode64},
    {"32-bit", ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32,
     hv::Mode::kCode32 | hv::Mode::kStack32},
    {"16-bit", ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16, 0},
    {"real", ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16, hv::Mode::kReal}};

bool ours(const ZydisDecodedInstruction& raw) {
  if (raw.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  switch (raw.meta.category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_STRINGOP:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_DECIMAL:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_SEMAPHORE:
    case ZYDIS_CATEGORY_PREFETCH: break;
    default: return raw.mnemonic == ZYDIS_MNEMONIC_LEA || raw.mnemonic == ZYDIS_MNEMONIC_XCHG;
  }
  switch (raw.meta.isa_set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PREFETCH_NOP: return true;
    default: return false;
  }
}

// All prefixes, opcodes and mod/rm bytes of interest, decoded in one mode; counts what is ours.
class Enumeration {
 public:
  explicit Enumeration(const ModeCase& mode) : mode_(mode) {
    ZydisDecoderInit(&decoder_, mode.machine, mode.stack);
    for (const ZydisDecoderMode off :
         {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_CLDEMOTE})
      ZydisDecoderEnableMode(&decoder_, off, ZYAN_FALSE);
  }

  void run() {
    for (const uint8_t map : {0, 1, 2}) {
      for (unsigned opcode = 0; opcode < 256; ++opcode)
        for (const unsigned modrm : {0x00u, 0x03u, 0x43u, 0x84u, 0xc0u, 0xc3u})
          for (unsigned reg = 0; reg < 8; ++reg)
            with_prefixes(map, static_cast<uint8_t>(opcode),
                          static_cast<uint8_t>(modrm | reg << 3));
    }
  }
  unsigned found() const { return found_; }
  const std::set<std::string>& missing() const { return missing_; }

 private:
  void with_prefixes(uint8_t map, uint8_t opcode, uint8_t modrm) {
    for (const uint8_t size : {0, 0x66})
      for (const uint8_t address : {0, 0x67})
        for (const uint8_t repeat : {0, 0xf2, 0xf3, 0xf0})
          for (const uint8_t rex : {0x00, 0x48, 0x45}) {
            if (rex != 0 && mode_.bits != hv::Mode::kCode64) continue;
            std::vector<uint8_t> bytes;
            for (const uint8_t prefix : {size, address, repeat, rex})
              if (prefix != 0) bytes.push_back(prefix);
            if (map != 0) bytes.push_back(0x0f);
            if (map == 2) bytes.push_back(0x38);
            bytes.insert(bytes.end(), {opcode, modrm});
            bytes.resize(15, 0x11);
            look_at(bytes);
          }
  }
  void look_at(const std::vector<uint8_t>& bytes) {
    hv::Insn in;
    in.mode.bits = mode_.bits;
    if (!ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(&decoder_, bytes.data(), bytes.size(), &in.raw, in.operands)) ||
        !ours(in.raw))
      return;
    ++found_;
    for (const auto family : {hv::select_integer, hv::select_string, hv::select_stack}) {
      hv::Op op;
      if (family(in, op).fn != nullptr) return;
    }
    missing_.insert(fmt::format("{} map {} opcode {:#x}", ZydisMnemonicGetString(in.raw.mnemonic),
                                static_cast<int>(in.raw.opcode_map), in.raw.opcode));
  }

  const ModeCase& mode_;
  ZydisDecoder decoder_;
  unsigned found_ = 0;
  std::set<std::string> missing_;
};

}  // namespace

TEST_CASE("every integer, string and stack encoding has a handler in every mode") {
  for (const ModeCase& mode : kModes) {
    Enumeration all(mode);
    all.run();
    std::string names;
    for (const std::string& name : all.missing()) names += name + "; ";
    INFO(mode.name << ": " << names);
    CHECK(all.found() > 10000);
    CHECK(all.missing().empty());
  }
}

}  // namespace us::test
