// Every instruction form of the processor we offer, found by decoding the whole opcode space. A
// form is a mnemonic with its operands' kinds and sizes (and LOCK or REP); an encoding is one way
// to write it.
#pragma once

#include <Zydis/Zydis.h>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace us::differential {

struct Decoded {
  ZydisDecodedInstruction raw;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

  unsigned visible() const { return raw.operand_count_visible; }
  ZydisMnemonic mnemonic() const { return raw.mnemonic; }
  // Index of the explicit memory operand, or -1.
  int memory_operand() const;
};

struct Encoding {
  uint8_t prefix = 0;  // mandatory: 0, 66, F2 or F3
  uint8_t map = 0;     // 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A
  uint8_t opcode = 0;
  bool rex_w = false, lock = false, has_modrm = false, memory = false;
  int8_t reg = -1;  // ModRM.reg if it belongs to the opcode
  int8_t rm = -1;   // ModRM.rm likewise
};

struct Form {
  std::string name;
  ZydisMnemonic mnemonic;
  std::vector<Encoding> encodings;
};

class Forms {
 public:
  Forms();
  const std::vector<Form>& all() const { return forms_; }
  bool decode(const uint8_t* bytes, size_t size, Decoded& out) const;
  // The form of a decoded instruction, or -1: not among those compared.
  int find(const Decoded& in) const;

 private:
  void try_encoding(Encoding e);
  void scan_opcode(Encoding e);

  ZydisDecoder decoder_;
  std::vector<Form> forms_;
  std::unordered_map<uint64_t, int> index_;
};

// Text of one instruction.
std::string disassemble(const Decoded& in, uint64_t address);

}  // namespace us::differential
