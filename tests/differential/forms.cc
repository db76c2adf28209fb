#include "tests/differential/forms.h"

#include <algorithm>
#include <fmt/format.h>

namespace us::differential {
namespace {

// x86-64-v2 and what else CPUID offers here.
constexpr ZydisISASet kOffered[] = {
    ZYDIS_ISA_SET_I86,          ZYDIS_ISA_SET_I186,        ZYDIS_ISA_SET_I286PROTECTED,
    ZYDIS_ISA_SET_I286REAL,     ZYDIS_ISA_SET_I386,        ZYDIS_ISA_SET_I486,
    ZYDIS_ISA_SET_I486REAL,     ZYDIS_ISA_SET_PENTIUMREAL, ZYDIS_ISA_SET_PENTIUMMMX,
    ZYDIS_ISA_SET_PPRO,         ZYDIS_ISA_SET_CMOV,        ZYDIS_ISA_SET_FCMOV,
    ZYDIS_ISA_SET_FAT_NOP,      ZYDIS_ISA_SET_LONGMODE,    ZYDIS_ISA_SET_LAHF,
    ZYDIS_ISA_SET_PAUSE,        ZYDIS_ISA_SET_POPCNT,      ZYDIS_ISA_SET_CMPXCHG16B,
    ZYDIS_ISA_SET_X87,          ZYDIS_ISA_SET_SSE,         ZYDIS_ISA_SET_SSE2,
    ZYDIS_ISA_SET_SSE2MMX,      ZYDIS_ISA_SET_SSE3,        ZYDIS_ISA_SET_SSE3X87,
    ZYDIS_ISA_SET_SSE4,         ZYDIS_ISA_SET_SSE42,       ZYDIS_ISA_SET_SSEMXCSR,
    ZYDIS_ISA_SET_SSSE3,        ZYDIS_ISA_SET_SSSE3MMX,    ZYDIS_ISA_SET_CLFSH,
    ZYDIS_ISA_SET_FXSAVE,       ZYDIS_ISA_SET_FXSAVE64,    ZYDIS_ISA_SET_XSAVE,
    ZYDIS_ISA_SET_PREFETCH_NOP, ZYDIS_ISA_SET_SSE_PREFETCH};

// Cannot be compared with a process of this host; each has tests of its own elsewhere.
constexpr ZydisMnemonic kLeftOut[] = {
    // They would really call the host's kernel, or (SYSENTER, SYSEXIT) differ between vendors.
    ZYDIS_MNEMONIC_SYSCALL, ZYDIS_MNEMONIC_SYSENTER, ZYDIS_MNEMONIC_SYSEXIT, ZYDIS_MNEMONIC_INT,
    // Time and identity of the processor.
    ZYDIS_MNEMONIC_RDTSC, ZYDIS_MNEMONIC_RDTSCP, ZYDIS_MNEMONIC_RDPMC, ZYDIS_MNEMONIC_CPUID,
    ZYDIS_MNEMONIC_XGETBV,
    // The host's own tables and segments, which the child needs.
    ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT, ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_STR,
    ZYDIS_MNEMONIC_SMSW, ZYDIS_MNEMONIC_LAR, ZYDIS_MNEMONIC_LSL, ZYDIS_MNEMONIC_VERR,
    ZYDIS_MNEMONIC_VERW, ZYDIS_MNEMONIC_LFS, ZYDIS_MNEMONIC_LGS, ZYDIS_MNEMONIC_LSS,
    ZYDIS_MNEMONIC_IRET, ZYDIS_MNEMONIC_IRETD, ZYDIS_MNEMONIC_IRETQ,
    // A reserved opcode.
    ZYDIS_MNEMONIC_FSTPNCE,
    // INT1 is a debugger's trap on the host; SYSRET faults differently from vendor to vendor.
    ZYDIS_MNEMONIC_INT1, ZYDIS_MNEMONIC_SYSRET};

bool is_prefix(uint8_t b) {
  return b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || (b >= 0x40 && b <= 0x4f) ||
         (b >= 0x64 && b <= 0x67) || b == 0xf0 || b == 0xf2 || b == 0xf3;
}

bool segment_register(const Decoded& in, unsigned i) {
  return in.operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
         ZydisRegisterGetClass(in.operands[i].reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

bool comparable(const Decoded& in) {
  if (in.raw.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  const auto has = [](const auto& list, auto x) {
    return std::find(std::begin(list), std::end(list), x) != std::end(list);
  };
  if (!has(kOffered, in.raw.meta.isa_set) || has(kLeftOut, in.mnemonic())) return false;
  if (in.raw.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return false;
  // MOVSXD r16 reads two bytes or four.
  if (in.mnemonic() == ZYDIS_MNEMONIC_MOVSXD && in.raw.operand_width == 16) return false;
  if (in.mnemonic() == ZYDIS_MNEMONIC_BSWAP && in.raw.operand_width == 16)
    return false;  // undefined
  // 0F 0D with a register: #UD on AMD, a NOP on Intel.
  if (in.raw.opcode_map == ZYDIS_OPCODE_MAP_0F && in.raw.opcode == 0x0d &&
      in.raw.raw.modrm.mod == 3)
    return false;
  // With a 16-bit operand size AMD's near branches cut RIP, Intel's do not. SDM 2 "JMP".
  const bool branch = in.raw.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
  if (branch && (in.raw.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)) return false;
  // Loads of segment registers would stay in the child.
  for (unsigned i = 0; i < in.visible(); ++i) {
    if (segment_register(in, i) && (in.operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
      return false;
  }
  return true;
}

uint64_t operand_code(const ZydisDecodedOperand& o) {
  uint64_t kind = o.type;
  if (o.type == ZYDIS_OPERAND_TYPE_REGISTER) kind = 8 + ZydisRegisterGetClass(o.reg.value);
  return kind | (uint64_t{o.size} << 6);
}

uint64_t repeat_bits(const Decoded& in) {
  uint64_t bits = 0;
  if (in.raw.attributes & ZYDIS_ATTRIB_HAS_LOCK) bits |= 1;
  if (in.raw.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE)) bits |= 2;
  if (in.raw.attributes & ZYDIS_ATTRIB_HAS_REPNE) bits |= 4;
  return bits;
}

uint64_t key_of(const Decoded& in) {
  uint64_t key = uint64_t{static_cast<uint32_t>(in.mnemonic())} * 8 + repeat_bits(in);
  for (unsigned i = 0; i < in.visible(); ++i)
    key = (key + operand_code(in.operands[i]) + 1) * 0x9e37'79b9'7f4a'7c15;
  return key;
}

std::string operand_name(const ZydisDecodedOperand& o) {
  switch (o.type) {
    case ZYDIS_OPERAND_TYPE_MEMORY: return fmt::format("m{}", o.size);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return fmt::format("i{}", o.size);
    case ZYDIS_OPERAND_TYPE_REGISTER: break;
    default: return "far";
  }
  switch (ZydisRegisterGetClass(o.reg.value)) {
    case ZYDIS_REGCLASS_XMM: return "xmm";
    case ZYDIS_REGCLASS_MMX: return "mm";
    case ZYDIS_REGCLASS_X87: return "st";
    case ZYDIS_REGCLASS_SEGMENT: return "seg";
    case ZYDIS_REGCLASS_CONTROL: return "cr";
    case ZYDIS_REGCLASS_DEBUG: return "dr";
    default: return fmt::format("r{}", o.size);
  }
}

std::string name_of(const Decoded& in) {
  const uint64_t repeat = repeat_bits(in);
  std::string name = repeat & 1 ? "lock " : repeat & 2 ? "rep " : repeat & 4 ? "repne " : "";
  name += ZydisMnemonicGetString(in.mnemonic());
  for (unsigned i = 0; i < in.visible(); ++i)
    name += (i == 0 ? " " : ",") + operand_name(in.operands[i]);
  return name;
}

}  // namespace

int Decoded::memory_operand() const {
  for (unsigned i = 0; i < visible(); ++i) {
    if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) return static_cast<int>(i);
  }
  return -1;
}

bool Forms::decode(const uint8_t* bytes, size_t size, Decoded& out) const {
  return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_, bytes, size, &out.raw, out.operands));
}

int Forms::find(const Decoded& in) const {
  const auto it = index_.find(key_of(in));
  return it != index_.end() && comparable(in) ? it->second : -1;
}

void Forms::try_encoding(Encoding e) {
  uint8_t bytes[24] = {};
  unsigned n = 0;
  const auto decode_as = [&](const Encoding& x, Decoded& out) {
    n = 0;
    if (x.lock) bytes[n++] = 0xf0;
    if (x.prefix != 0) bytes[n++] = x.prefix;
    if (x.rex_w) bytes[n++] = 0x48;
    if (x.map != 0) bytes[n++] = 0x0f;
    if (x.map >= 2) bytes[n++] = x.map == 2 ? 0x38 : 0x3a;
    bytes[n++] = x.opcode;
    const int rm = x.memory ? 3 : std::max<int>(x.rm, 0);
    bytes[n] = static_cast<uint8_t>((x.memory ? 0 : 0xc0) | std::max<int>(x.reg, 0) << 3 | rm);
    for (unsigned i = n + 1; i < sizeof bytes; ++i) bytes[i] = 0;
    return decode(bytes, sizeof bytes - 1, out) && comparable(out);
  };
  Decoded in;
  if (!decode_as(e, in)) return;
  e.has_modrm = (in.raw.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
  if (!e.has_modrm && (e.memory || e.reg > 0 || e.rm > 0)) return;
  const uint64_t key = key_of(in);
  // Without its prefix or REX.W the same form: the longer encoding says nothing new.
  for (const bool drop_w : {false, true}) {
    Encoding shorter = e;
    if (drop_w) shorter.rex_w = false;
    if (!drop_w) shorter.prefix = 0;
    const bool is_shorter = shorter.rex_w != e.rex_w || shorter.prefix != e.prefix;
    Decoded other;
    if (is_shorter && decode_as(shorter, other) && key_of(other) == key) return;
  }
  const auto [it, added] = index_.try_emplace(key, static_cast<int>(forms_.size()));
  if (added) forms_.push_back({name_of(in), in.mnemonic(), {}});
  forms_[static_cast<unsigned>(it->second)].encodings.push_back(e);
}

void Forms::scan_opcode(Encoding e) {
  // Where ModRM.rm chooses between instructions.
  const bool dense = (e.map == 0 && e.opcode >= 0xd8 && e.opcode <= 0xdf) ||
                     (e.map == 1 && (e.opcode == 0x01 || e.opcode == 0xae || e.opcode == 0xc7));
  for (int reg = 0; reg < 8; ++reg) {
    e.reg = static_cast<int8_t>(reg);
    e.rm = -1;
    e.memory = true;
    for (const bool lock : {false, true}) {
      e.lock = lock;
      try_encoding(e);
    }
    e.memory = e.lock = false;
    for (int rm = 0; rm < (dense ? 8 : 1); ++rm) {
      e.rm = static_cast<int8_t>(dense ? rm : -1);
      try_encoding(e);
    }
  }
}

Forms::Forms() {
  ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  for (const auto mode :
       {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_LZCNT,
        ZYDIS_DECODER_MODE_TZCNT, ZYDIS_DECODER_MODE_CLDEMOTE, ZYDIS_DECODER_MODE_WBNOINVD})
    ZydisDecoderEnableMode(&decoder_, mode, ZYAN_FALSE);
  for (uint8_t map = 0; map < 4; ++map) {
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
      if (map == 0 && (is_prefix(static_cast<uint8_t>(opcode)) || opcode == 0x0f)) continue;
      for (const uint8_t prefix : {0x00, 0x66, 0xf2, 0xf3}) {
        for (const bool w : {false, true}) {
          Encoding e;
          e.prefix = prefix;
          e.map = map;
          e.opcode = static_cast<uint8_t>(opcode);
          e.rex_w = w;
          scan_opcode(e);
        }
      }
    }
  }
}

std::string disassemble(const Decoded& in, uint64_t address) {
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  char line[160] = "?";
  ZydisFormatterFormatInstruction(&formatter, &in.raw, in.operands, in.raw.operand_count_visible,
                                  line, sizeof line, address, nullptr);
  return line;
}

}  // namespace us::differential
