#include "tests/differential/generator.h"

#include <cstring>

namespace us::differential {
namespace {

constexpr unsigned kLongest = 15;

// Registers that hold addresses throughout a stream.
constexpr unsigned kStreamBases[] = {3, 13, 14};

bool is_stream_base(unsigned n) { return n == 3 || n == 13 || n == 14; }

// Bytes of one instruction under construction.
struct Writer {
  uint8_t bytes[32];
  unsigned n = 0;
  void put(unsigned b) { bytes[n++] = static_cast<uint8_t>(b); }
};

void put_modrm(Random& r, Writer& w, const Encoding& e, bool stream, unsigned base) {
  const auto reg = e.reg >= 0 ? static_cast<unsigned>(e.reg) : static_cast<unsigned>(r.below(8));
  if (!e.memory) {
    const auto rm = e.rm >= 0 ? static_cast<unsigned>(e.rm) : static_cast<unsigned>(r.below(8));
    w.put(0xc0 | reg << 3 | rm);
    return;
  }
  if (stream) {  // [base + disp32]
    w.put(0x80 | reg << 3 | (base & 7));
  } else {
    const auto mod = static_cast<unsigned>(r.below(3)), rm = static_cast<unsigned>(r.below(8));
    w.put(mod << 6 | reg << 3 | rm);
    if (rm == 4) w.put(static_cast<unsigned>(r.next() & 0xff));
  }
}

void put_prefixes(Random& r, Writer& w, const Encoding& e, bool stream) {
  if (e.lock) w.put(0xf0);
  if (!stream && r.percent(4)) {  // redundant, ignored or address-changing prefixes
    constexpr uint8_t kOdd[] = {0x2e, 0x3e, 0x26, 0x36, 0x67, 0x67, 0x66, 0xf2, 0xf3, 0x65};
    w.put(kOdd[r.below(sizeof kOdd)]);
  }
  if (!stream && e.memory && r.percent(4)) w.put(0x65);
  if (e.prefix != 0) w.put(e.prefix);
}

void put_rex(Random& r, Writer& w, const Encoding& e, bool stream, unsigned base) {
  unsigned rex = e.rex_w ? 0x48 : 0;
  if (stream && e.memory) {
    rex |= 0x40 | (base >> 3) | (r.next() & 4);
  } else if (r.percent(50)) {
    rex |= 0x40 | (r.next() & 7);
  }
  // What ModRM.rm selects must not become another register's number.
  if (e.rm >= 0) rex &= 0x4a;
  if (rex != 0) w.put(rex);
}

unsigned put_instruction(Random& r, const Encoding& e, bool stream, uint8_t* out) {
  Writer w;
  const unsigned base = kStreamBases[r.below(3)];
  put_prefixes(r, w, e, stream);
  put_rex(r, w, e, stream, base);
  if (e.map != 0) w.put(0x0f);
  if (e.map >= 2) w.put(e.map == 2 ? 0x38 : 0x3a);
  w.put(e.opcode);
  if (e.has_modrm) put_modrm(r, w, e, stream, base);
  const uint64_t rest[2] = {r.next(), r.next()};
  std::memcpy(w.bytes + w.n, rest, 12);
  std::memcpy(out, w.bytes, kLongest);
  return kLongest;
}

bool writes_stream_base(const Decoded& in) {
  for (unsigned i = 0; i < in.raw.operand_count; ++i) {
    const ZydisDecodedOperand& o = in.operands[i];
    if (o.type != ZYDIS_OPERAND_TYPE_REGISTER || !(o.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
      continue;
    const ZydisRegister r = o.reg.value;
    const ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
    if (ZydisRegisterGetClass(whole) != ZYDIS_REGCLASS_GPR64) continue;
    const auto id = static_cast<unsigned>(ZydisRegisterGetId(whole));
    if (is_stream_base(id) || id == 4) return true;
  }
  return false;
}

bool conditional_flags(const Decoded& in) {
  switch (in.raw.meta.category) {
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_STRINGOP: return true;
    default: return in.mnemonic() == ZYDIS_MNEMONIC_SHLD || in.mnemonic() == ZYDIS_MNEMONIC_SHRD;
  }
}

bool has_prefix(const Decoded& in, uint8_t prefix) {
  for (unsigned i = 0; i < in.raw.raw.prefix_count; ++i)
    if (in.raw.raw.prefixes[i].value == prefix) return true;
  return false;
}

uint64_t undefined_after(const Decoded& in, uint64_t undefined) {
  const ZydisAccessedFlags* f = in.raw.cpu_flags;
  if (f == nullptr) return undefined;
  if (!conditional_flags(in)) undefined &= ~uint64_t{f->modified | f->set_0 | f->set_1};
  return undefined | f->undefined;
}

// Results that the manual leaves undefined, or encodings that differ between vendors by design.
bool undefined_result(const Decoded& in) {
  switch (in.mnemonic()) {
    // F3 makes them TZCNT and LZCNT on a host that has those.
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR: return has_prefix(in, 0xf3);
    // On AMD these prefixes turn one into the other.
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE: return has_prefix(in, 0xf3) || has_prefix(in, 0xf2);
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
      return in.raw.operand_width == 16 && in.raw.raw.imm[0].size != 0 &&
             (in.raw.raw.imm[0].value.u & 31) > 16;
    default: return false;
  }
}

// Instructions whose operands, in registers or memory, decide whether the result is defined: these
// are aimed at the start of a test, and nothing may be aimed anew behind them.
bool needs_known_operands(const Decoded& in) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return in.raw.operand_width == 16;
    // AMD's processors have one bit of MXCSR more.
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return true;
    default:
      return in.raw.meta.category == ZYDIS_CATEGORY_IOSTRINGOP ||
             in.raw.meta.category == ZYDIS_CATEGORY_XSAVE;
  }
}
bool jumps_by_operand(const Decoded& in) {
  return in.raw.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && !in.raw.raw.imm[0].is_relative;
}

}  // namespace

void Generator::only(const std::string& text) {
  chosen_.clear();
  for (unsigned i = 0; i < forms_.all().size(); ++i) {
    if (forms_.all()[i].name.find(text) != std::string::npos)
      chosen_.push_back(static_cast<int>(i));
  }
}

bool Generator::accept(const Test& test, const Decoded& in, bool stream) const {
  if (undefined_result(in)) return false;
  const ZydisAccessedFlags* f = in.raw.cpu_flags;
  if (f != nullptr && (f->tested & test.undefined_flags) != 0) return false;
  if (test.count != 0 && needs_known_operands(in)) return false;
  if (test.count != 0 && needs_known_operands(test.steps[0].in) && jumps_by_operand(in))
    return false;
  return !stream || !writes_stream_base(in);
}

unsigned Generator::write(Random& r, Test& test, Snapshot& s, int form, unsigned offset,
                          bool stream) const {
  const Form& wanted = forms_.all()[static_cast<unsigned>(form)];
  const Encoding& e = wanted.encodings[r.below(wanted.encodings.size())];
  uint8_t* at = test.code + offset;
  put_instruction(r, e, stream, at);
  Step& step = test.steps[test.count];
  if (!forms_.decode(at, kLongest, step.in)) return 0;
  step.form = forms_.find(step.in);
  if (step.form < 0 || (stream && step.form != form) || !accept(test, step.in, stream)) return 0;
  const uint64_t address = test.slot + offset;
  uint64_t target = 0;
  if (step.in.memory_operand() >= 0) {
    target = choose_target(r, step.in);
    if (stream) {  // keep it mostly quiet: a fault ends the stream
      target = kDataWindowAt + 64 + (r.below(kDataWindow - 128) & ~15ull);
    }
  }
  const bool branch = step.in.raw.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
  if (test.count == 0 || branch)
    direct(r, step.in, at, test.slot, address, target, test.count == 0, s);
  if (target != 0 && step.in.raw.raw.modrm.mod != 3) {
    if (!aim_memory(r, step.in, at, address, target, s)) return 0;
    test.memory_at = target;
  }
  // Patching may have changed immediates and displacements.
  if (!forms_.decode(at, kLongest, step.in)) return 0;
  step.offset = static_cast<uint8_t>(offset);
  return step.in.raw.length;
}

void Generator::make(uint64_t number, Test& test, Snapshot& s) const {
  Random r(seed_ ^ (number * 0xd134'2543'de82'ef95 + 1));
  r.next();
  const unsigned bank = static_cast<unsigned>((number / kBatch) % kBanks);
  test.number = number;
  test.slot = slot_address(bank, static_cast<unsigned>(number % kBatch));
  test.count = 0;
  test.undefined_flags = 0;
  test.memory_at = 0;
  test.by_steps = r.percent(10);
  std::memset(test.code, 0xcc, sizeof test.code);
  fill_state(r, s);
  s.gpr[4] = kStackWindowAt + kStackWindow / 2 + (r.below(9) - 4) * 8;
  s.gpr[5] = s.gpr[4] + r.below(8) * 8;
  s.gpr[6] = kDataWindowAt + r.below(kDataWindow);
  s.gpr[7] = kDataWindowAt + r.below(kDataWindow);
  const bool stream = r.percent(35);
  const unsigned wanted = stream ? 2 + static_cast<unsigned>(r.below(kMaxSteps - 1)) : 1;
  if (stream) {
    if (r.percent(90)) s.gpr[1] = r.below(64);  // counts of shifts and string operations
    for (const unsigned base : kStreamBases) s.gpr[base] = kDataWindowAt + kDataWindow / 2;
  }
  unsigned offset = static_cast<unsigned>(r.below(8));
  const unsigned start = offset;
  for (unsigned tries = 0; test.count < wanted && tries < 200; ++tries) {
    const int form = chosen_.empty() ? static_cast<int>(r.below(forms_.all().size()))
                                     : chosen_[r.below(chosen_.size())];
    unsigned length = 0;
    for (unsigned i = 0; i < 8 && length == 0; ++i)
      length = write(r, test, s, form, offset, stream);
    if (length == 0) continue;
    const Decoded& in = test.steps[test.count].in;
    test.undefined_flags = undefined_after(in, test.undefined_flags);
    test.steps[test.count].undefined_flags = test.undefined_flags;
    offset += length;
    ++test.count;
    const bool open_codes = (s.fcw & 3) != 3 && is_x87_compare(in.mnemonic());
    if (open_codes || ends_stream(in.mnemonic()) ||
        in.raw.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
      break;
    if (offset + kLongest + 4 > kSlotSize) break;
  }
  std::memset(test.code + offset, 0xcc, kSlotSize - offset);
  s.rip = test.slot + start;
}

}  // namespace us::differential
