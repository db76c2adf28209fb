#include "tests/unit/cpu_int/forms.h"

namespace us::test {
namespace {

using enum Operands;

void add_arithmetic(std::vector<Form>& forms) {
  for (uint8_t operation = 0; operation < 8; ++operation) {
    const auto base = static_cast<uint8_t>(operation * 8);
    for (uint8_t i = 0; i < 4; ++i)
      forms.push_back({.opcode = static_cast<uint8_t>(base + i), .operands = kModrm});
    forms.push_back({.opcode = static_cast<uint8_t>(base + 4), .immediate = Immediate::kByte});
    forms.push_back({.opcode = static_cast<uint8_t>(base + 5), .immediate = Immediate::kFull});
    for (const auto& [opcode, immediate] : {std::pair<uint8_t, Immediate>{0x80, Immediate::kByte},
                                            {0x81, Immediate::kFull},
                                            {0x83, Immediate::kByte}})
      forms.push_back(
          {.opcode = opcode, .operands = kModrm, .digit = operation, .immediate = immediate});
  }
  forms.push_back({.opcode = 0xa8, .immediate = Immediate::kByte});
  forms.push_back({.opcode = 0xa9, .immediate = Immediate::kFull});
  forms.push_back({.opcode = 0xf6, .operands = kModrm, .digit = 0, .immediate = Immediate::kByte});
  forms.push_back({.opcode = 0xf7, .operands = kModrm, .digit = 0, .immediate = Immediate::kFull});
  for (const uint8_t opcode : {0xf6, 0xf7})
    for (uint8_t digit = 2; digit < 8; ++digit)
      forms.push_back({.opcode = opcode, .operands = kModrm, .digit = digit});
  for (const uint8_t opcode : {0xfe, 0xff})
    for (uint8_t digit = 0; digit < 2; ++digit)
      forms.push_back({.opcode = opcode, .operands = kModrm, .digit = digit});
  forms.push_back({.opcode = 0x69, .operands = kModrm, .immediate = Immediate::kFull});
  forms.push_back({.opcode = 0x6b, .operands = kModrm, .immediate = Immediate::kByte});
  for (const uint8_t opcode : {0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x63})
    forms.push_back({.opcode = opcode, .operands = kModrm});
}

void add_shifts(std::vector<Form>& forms) {
  for (uint8_t digit = 0; digit < 8; ++digit) {
    for (const uint8_t opcode : {0xc0, 0xc1})
      forms.push_back(
          {.opcode = opcode, .operands = kModrm, .digit = digit, .immediate = Immediate::kByte});
    for (const uint8_t opcode : {0xd0, 0xd1, 0xd2, 0xd3})
      forms.push_back({.opcode = opcode, .operands = kModrm, .digit = digit});
  }
  for (const uint8_t opcode : {0xa4, 0xac})
    forms.push_back(
        {.map = Map::kTwo, .opcode = opcode, .operands = kModrm, .immediate = Immediate::kByte});
  for (const uint8_t opcode : {0xa5, 0xad})
    forms.push_back({.map = Map::kTwo, .opcode = opcode, .operands = kModrm});
}

void add_bits(std::vector<Form>& forms) {
  for (const uint8_t opcode : {0xa3, 0xab, 0xb3, 0xbb, 0xbc, 0xbd})
    forms.push_back({.map = Map::kTwo, .opcode = opcode, .operands = kModrm});
  for (uint8_t digit = 4; digit < 8; ++digit)
    forms.push_back({.map = Map::kTwo,
                     .opcode = 0xba,
                     .operands = kModrm,
                     .digit = digit,
                     .immediate = Immediate::kByte});
  forms.push_back({.map = Map::kTwo, .opcode = 0xb8, .operands = kModrm, .prefix = 0xf3});
  for (const uint8_t opcode : {0xf0, 0xf1})
    forms.push_back({.map = Map::kThree38, .opcode = opcode, .operands = kModrm, .prefix = 0xf2});
}

void add_moves(std::vector<Form>& forms) {
  forms.push_back({.opcode = 0xc6, .operands = kModrm, .digit = 0, .immediate = Immediate::kByte});
  forms.push_back({.opcode = 0xc7, .operands = kModrm, .digit = 0, .immediate = Immediate::kFull});
  forms.push_back({.opcode = 0xb0, .operands = kOpcodeReg, .immediate = Immediate::kByte});
  forms.push_back({.opcode = 0xb8, .operands = kOpcodeReg, .immediate = Immediate::kMov});
  forms.push_back({.opcode = 0x90, .operands = kOpcodeReg});
  forms.push_back({.opcode = 0x8d, .operands = kMemOnly});
  forms.push_back({.opcode = 0xd7});
  for (const uint8_t opcode : {0x98, 0x99, 0x9e, 0x9f, 0xf5, 0xf8, 0xf9, 0xfc, 0xfd})
    forms.push_back({.opcode = opcode});
  for (uint8_t code = 0; code < 16; ++code) {
    for (const uint8_t high : {0x40, 0x90})
      forms.push_back(
          {.map = Map::kTwo, .opcode = static_cast<uint8_t>(high + code), .operands = kModrm});
  }
  for (const uint8_t opcode : {0xaf, 0xb6, 0xb7, 0xbe, 0xbf, 0xb0, 0xb1, 0xc0, 0xc1})
    forms.push_back({.map = Map::kTwo, .opcode = opcode, .operands = kModrm});
  forms.push_back({.map = Map::kTwo, .opcode = 0xc8, .operands = kOpcodeReg});
  forms.push_back({.map = Map::kTwo, .opcode = 0xc7, .operands = kMemOnly, .digit = 1});
  for (const uint8_t opcode : {0xf0, 0xf1})
    forms.push_back({.map = Map::kThree38, .opcode = opcode, .operands = kMemOnly});
  for (const uint8_t opcode : {0x18, 0x1f})
    forms.push_back({.map = Map::kTwo, .opcode = opcode, .operands = kMemOnly, .digit = 0});
}

void add_strings_and_stack(std::vector<Form>& forms) {
  for (const uint8_t opcode : {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf})
    forms.push_back({.opcode = opcode, .prefix = 1, .string = true});
  for (const uint8_t opcode : {0x50, 0x58})
    forms.push_back({.opcode = opcode, .operands = kOpcodeReg, .stack = true});
  forms.push_back({.opcode = 0x68, .immediate = Immediate::kFull, .stack = true});
  forms.push_back({.opcode = 0x6a, .immediate = Immediate::kByte, .stack = true});
  forms.push_back({.opcode = 0xff, .operands = kModrm, .digit = 6, .stack = true});
  forms.push_back({.opcode = 0x8f, .operands = kModrm, .digit = 0, .stack = true});
  forms.push_back({.opcode = 0xc8, .immediate = Immediate::kEnter, .stack = true});
  forms.push_back({.opcode = 0xc9, .stack = true});
}

std::vector<Form> all_forms() {
  std::vector<Form> forms;
  add_arithmetic(forms);
  add_shifts(forms);
  add_bits(forms);
  add_moves(forms);
  add_strings_and_stack(forms);
  return forms;
}

uint64_t below(Random& random, uint64_t n) { return random() % n; }

uint64_t interesting(Random& random) {
  static constexpr uint64_t kValues[] = {0,           1,          2,          9,           0xf,
                                         0x10,        0x7f,       0x80,       0xff,        0x100,
                                         0x7fff,      0x8000,     0xffff,     0x7fff'ffff, 1u << 31,
                                         0xffff'ffff, 1ull << 32, ~0ull >> 1, 1ull << 63,  ~0ull};
  switch (below(random, 4)) {
    case 0: return kValues[below(random, std::size(kValues))];
    case 1: return random() & 0xff;
    case 2: return random() >> below(random, 64);
    default: return random();
  }
}

// RBX, RSI, RDI, RBP and RSP point into the window, R12 is a small index, R8 a bit offset that
// stays inside it.
void place_pointers(Machine& m, Random& random, const Form& form) {
  const auto near_centre = [&] { return kCentre - 40 + below(random, 80); };
  for (const unsigned reg : {3u, 4u, 5u, 6u, 7u}) m.regs[reg] = near_centre();
  if (form.map == Map::kTwo && form.opcode == 0xc7)
    m.regs[3] = kCentre - 16 + 16 * below(random, 3);
  m.regs[12] = below(random, 8);
  m.regs[8] = below(random, 512) - 256;
  if (form.string) m.regs[1] = below(random, 33);
}

void fill_window(Machine& m, Random& random) {
  const bool few_values = below(random, 2) == 0;
  for (uint8_t& b : m.window)
    b = static_cast<uint8_t>(few_values ? below(random, 12) / 11 : random());
}

class Encoder {
 public:
  Encoder(const Form& form, Random& random) : form_(form), random_(random) {}

  std::vector<uint8_t> encode() {
    wide_ = random_() & 1;
    narrow_ = (random_() & 3) == 0;
    if (narrow_) code_.push_back(0x66);
    if (form_.prefix > 1) code_.push_back(form_.prefix);
    if (form_.prefix == 1) add_repeat();
    if (form_.string && below(random_, 4) == 0) code_.push_back(0x67);
    const bool memory = form_.operands == kMemOnly || (form_.operands == kModrm && (random_() & 1));
    rex(memory);
    if (form_.map != Map::kOne) code_.push_back(0x0f);
    if (form_.map == Map::kThree38) code_.push_back(0x38);
    auto opcode = form_.opcode;
    if (form_.operands == kOpcodeReg) opcode = static_cast<uint8_t>(opcode | below(random_, 8));
    code_.push_back(opcode);
    if (form_.operands == kModrm || form_.operands == kMemOnly) modrm(memory);
    immediate();
    return code_;
  }

 private:
  void add_repeat() {
    const uint64_t kind = below(random_, 3);
    if (kind != 0) code_.push_back(kind == 1 ? 0xf2 : 0xf3);
  }
  // With memory, B stays clear (the base is RBX) and X selects R12 when a SIB byte follows. A bit
  // string's offset register is R8: R set, reg 0.
  void rex(bool memory) {
    bit_string_ =
        memory && form_.map == Map::kTwo && (form_.opcode & 0xe7) == 0xa3 && form_.digit == 255;
    indexed_ = memory && (random_() & 1);
    const bool r = bit_string_ || ((random_() & 1) && !form_.stack);
    const bool b = !memory && (random_() & 1);
    const uint8_t bits =
        static_cast<uint8_t>((wide_ ? 8 : 0) | (r ? 4 : 0) | (indexed_ ? 2 : 0) | (b ? 1 : 0));
    wide_ = bits & 8;
    if (bits != 0 || (random_() & 1)) code_.push_back(0x40 | bits);
  }
  void modrm(bool memory) {
    uint8_t reg = form_.digit != 255 ? form_.digit : static_cast<uint8_t>(below(random_, 8));
    if (bit_string_) reg = 0;
    const auto middle = static_cast<uint8_t>(reg << 3);
    if (!memory) {
      code_.push_back(static_cast<uint8_t>(0xc0 | middle | below(random_, 8)));
      return;
    }
    const bool pair = form_.map == Map::kTwo && form_.opcode == 0xc7;
    const bool displaced = (random_() & 1) && !pair;
    const auto mod = static_cast<uint8_t>(displaced ? 0x40 : 0);
    if (indexed_ && !pair) {
      code_.push_back(mod | middle | 4);
      code_.push_back(static_cast<uint8_t>(below(random_, 4) << 6 | 4 << 3 | 3));
    } else {
      code_.push_back(mod | middle | 3);
    }
    if (displaced) code_.push_back(static_cast<uint8_t>(below(random_, 32) - 16));
  }
  void number(unsigned bytes) {
    const uint64_t value = interesting(random_);
    for (unsigned i = 0; i < bytes; ++i) code_.push_back(static_cast<uint8_t>(value >> (8 * i)));
  }
  void immediate() {
    const unsigned full = wide_ ? 4 : narrow_ ? 2 : 4;
    switch (form_.immediate) {
      case Immediate::kNone: break;
      case Immediate::kByte: number(1); break;
      case Immediate::kFull: number(full); break;
      case Immediate::kMov: number(wide_ ? 8 : full); break;
      case Immediate::kEnter:
        code_.insert(code_.end(), {static_cast<uint8_t>(random_() & 63), 0,
                                   static_cast<uint8_t>(random_() & 0xe3)});
        break;
    }
  }

  const Form& form_;
  Random& random_;
  std::vector<uint8_t> code_;
  bool wide_ = false, narrow_ = false, indexed_ = false, bit_string_ = false;
};

}  // namespace

std::span<const Form> integer_forms() {
  static const std::vector<Form> forms = all_forms();
  return forms;
}

Sample make_sample(const Form& form, Random& random) {
  Sample s;
  s.code = Encoder(form, random).encode();
  for (uint64_t& r : s.machine.regs) r = interesting(random);
  place_pointers(s.machine, random, form);
  const bool backwards = form.string && (random() & 1);
  s.machine.flags = 2 | (random() & kArithmeticFlags) | (backwards ? kDirection : 0);
  fill_window(s.machine, random);
  return s;
}

}  // namespace us::test
