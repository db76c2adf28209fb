#include <cstring>

#include "tests/differential/generator.h"

namespace us::differential {
namespace {

constexpr int kRax = 0, kRcx = 1, kRdx = 2, kRbx = 3, kRsp = 4, kRsi = 6, kRdi = 7;

// Writes into the memory image that the test starts with, where it lies in a window.
void poke(Snapshot& s, uint64_t address, const void* bytes, size_t size) {
  const auto* from = static_cast<const uint8_t*>(bytes);
  for (size_t i = 0; i < size; ++i, ++address) {
    if (address >= kDataWindowAt && address < kDataWindowAt + kDataWindow)
      s.data[address - kDataWindowAt] = from[i];
    if (address >= kStackWindowAt && address < kStackWindowAt + kStackWindow)
      s.stack[address - kStackWindowAt] = from[i];
  }
}
template <class T>
void poke(Snapshot& s, uint64_t address, T value) {
  poke(s, address, &value, sizeof value);
}

int gpr_number(ZydisRegister r) {
  const ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
  if (ZydisRegisterGetClass(whole) != ZYDIS_REGCLASS_GPR64) return -1;
  return ZydisRegisterGetId(whole);
}

bool is_canonical(uint64_t address) {
  const auto top = static_cast<int64_t>(address) >> 47;
  return top == 0 || top == -1;
}

bool patch(uint8_t* code, const Decoded& in, int64_t value) {
  const auto& disp = in.raw.raw.disp;
  if (disp.size == 32 && value == static_cast<int32_t>(value)) {
    const auto v = static_cast<int32_t>(value);
    std::memcpy(code + disp.offset, &v, 4);
    return true;
  }
  return false;
}

void patch_immediate(uint8_t* code, const Decoded& in, unsigned i, uint64_t value) {
  const auto& imm = in.raw.raw.imm[i];
  if (imm.size != 0) std::memcpy(code + imm.offset, &value, imm.size / 8);
}

// Addresses at which something faults (or nearly).
uint64_t awkward_target(Random& r, unsigned size) {
  switch (r.below(8)) {
    case 0: return kReadOnlyPage + r.below(64);
    case 1: return kGuardPage + r.below(64);
    case 2: return kGuardPage - 1 - r.below(size);  // the access may run into the guard page
    case 3: return kReadOnlyPage - 1 - r.below(size);
    case 4: return kDataBase - 1 - r.below(size);
    case 5: return kNonCanonical + r.below(64);
    case 6: return 0x7fff'ffff'ffff - r.below(size);  // the end of the lower half
    default: return r.below(256);
  }
}

bool wants_big_alignment(const Decoded& in) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: return true;
    default: return false;
  }
}

bool bit_string(const Decoded& in) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: return in.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    default: return false;
  }
}

uint16_t plausible_control(Random& r) {
  constexpr uint16_t kPrecisions[] = {0x000, 0x200, 0x300};
  return static_cast<uint16_t>((r.next() & 0xfcff) | kPrecisions[r.below(3)]);
}

// A register image as FXRSTOR takes it; MXCSR bit 17 exists on AMD's processors only.
void poke_area(Random& r, Snapshot& s, uint64_t at) {
  poke(s, at, plausible_control(r));
  uint32_t mxcsr = static_cast<uint32_t>(r.next() & 0xffff);
  if (r.percent(5)) mxcsr |= 1u << 20;
  poke(s, at + 24, mxcsr);
  for (unsigned i = 0; i < 8; ++i) {
    uint64_t mantissa;
    uint16_t exponent;
    random_extended(r, mantissa, exponent);
    poke(s, at + 32 + 16 * i, mantissa);
    poke(s, at + 40 + 16 * i, exponent);
  }
}

void poke_xsave_header(Random& r, Snapshot& s, uint64_t at) {
  uint64_t header[8] = {r.below(4)};
  if (r.percent(5)) header[0] |= 1ull << 62;
  if (r.percent(5)) header[2] = 1;
  poke(s, at + 512, header, sizeof header);
}

void direct_memory_value(Random& r, const Decoded& in, uint64_t target, Snapshot& s) {
  const auto index = static_cast<unsigned>(in.memory_operand());
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR: return poke(s, target, plausible_control(r));
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: poke_xsave_header(r, s, target); [[fallthrough]];
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return poke_area(r, s, target);
    case ZYDIS_MNEMONIC_LDMXCSR:
      return poke(s, target,
                  static_cast<uint32_t>(r.next() & (r.percent(10) ? 0xfffdffff : 0xffff)));
    case ZYDIS_MNEMONIC_FBLD: {
      for (unsigned i = 0; i < 9; ++i)
        poke(s, target + i, static_cast<uint8_t>(r.below(10) | r.below(10) << 4));
      return poke(s, target + 9, static_cast<uint8_t>(r.next() & 0x80));
    }
    default: break;
  }
  const ZydisDecodedOperand& o = in.operands[index];
  for (unsigned i = 0; i < o.element_count; ++i) {
    const uint64_t at = target + i * (o.element_size / 8u);
    if (o.element_type == ZYDIS_ELEMENT_TYPE_FLOAT32) poke(s, at, random_float(r));
    if (o.element_type == ZYDIS_ELEMENT_TYPE_FLOAT64) poke(s, at, random_double(r));
    if (o.element_type == ZYDIS_ELEMENT_TYPE_FLOAT80) {
      uint64_t mantissa;
      uint16_t exponent;
      random_extended(r, mantissa, exponent);
      poke(s, at, mantissa);
      poke(s, at + 8, exponent);
    }
  }
  if (o.element_type == ZYDIS_ELEMENT_TYPE_INT && r.percent(50) && o.size <= 64) {
    const uint64_t value = random_integer(r);
    poke(s, target, &value, o.size / 8u);
  }
}

// Dividends that mostly fit.
void direct_division(Random& r, const Decoded& in, Snapshot& s) {
  if (r.percent(25)) return;
  const unsigned width = in.operands[0].size;
  const bool is_signed = in.mnemonic() == ZYDIS_MNEMONIC_IDIV;
  if (width == 8) {
    s.gpr[kRax] = (s.gpr[kRax] & ~0xffffull) | (r.next() & 0x7f);
    return;
  }
  const bool minus = is_signed && ((s.gpr[kRax] >> (width - 1)) & 1) != 0;
  s.gpr[kRdx] = minus ? ~0ull : 0;
  if (r.percent(30)) s.gpr[kRdx] += r.below(16) - 8;
}

void direct_compare_exchange(Random& r, const Decoded& in, uint64_t target, Snapshot& s) {
  if (r.percent(50)) return;
  if (in.mnemonic() != ZYDIS_MNEMONIC_CMPXCHG) {
    const unsigned half = in.mnemonic() == ZYDIS_MNEMONIC_CMPXCHG8B ? 4 : 8;
    poke(s, target, &s.gpr[kRax], half);
    poke(s, target + half, &s.gpr[kRdx], half);
    return;
  }
  const ZydisDecodedOperand& o = in.operands[0];
  if (o.type == ZYDIS_OPERAND_TYPE_MEMORY) return poke(s, target, &s.gpr[kRax], o.size / 8u);
  const int n = gpr_number(o.reg.value);
  if (n >= 0) s.gpr[kRax] = s.gpr[n];
}

// Branches inside the slot, whose end is all INT3.
void direct_branch(Random& r, const Decoded& in, uint8_t* code, uint64_t slot, uint64_t address,
                   uint64_t target, Snapshot& s) {
  const uint64_t landing = slot + kSlotSize - 1 - r.below(8);
  const uint64_t next = address + in.raw.length;
  if (in.raw.raw.imm[0].is_relative) return patch_immediate(code, in, 0, landing - next);
  if (in.mnemonic() == ZYDIS_MNEMONIC_RET) {
    if (in.raw.raw.imm[0].size != 0) patch_immediate(code, in, 0, r.below(64));
    if (r.percent(85)) poke(s, s.gpr[kRsp], landing);
    return;
  }
  const ZydisDecodedOperand& o = in.operands[0];
  const uint64_t destination = r.percent(85)   ? landing
                               : r.percent(50) ? kNonCanonical
                                               : kDataBase + 16;
  if (o.type == ZYDIS_OPERAND_TYPE_MEMORY) return poke(s, target, destination);
  const int n = o.type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_number(o.reg.value) : -1;
  if (n >= 0 && n != kRsp) s.gpr[n] = destination;
}

void direct_string(Random& r, const Decoded& in, Snapshot& s) {
  const bool repeated = (in.raw.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
                                              ZYDIS_ATTRIB_HAS_REPNE)) != 0;
  if (repeated) s.gpr[kRcx] = r.percent(96) ? r.below(24) : r.below(6000);
  // With a count of zero AMD still asks whether the port is allowed.
  if (in.raw.meta.category == ZYDIS_CATEGORY_IOSTRINGOP) s.gpr[kRcx] |= 1;
  // Equal runs make REPE go on; a stored byte met makes REPNE stop.
  if (r.percent(50)) std::memset(s.data + 300, s.data[0], 400);
  if (r.percent(5)) s.gpr[kRdi] = awkward_target(r, 8);
  if (r.percent(5)) s.gpr[kRsi] = awkward_target(r, 8);
}

// RSP stays canonical: not every host lets a signal's handler return to another (Zen 5 answers
// #GP).
bool aim_stack_pointer(Random& r, const Decoded& in, uint64_t target, int index, Snapshot& s) {
  if (index < 0) {
    if (!is_canonical(target)) return false;
    s.gpr[kRsp] = target;
    return true;
  }
  const auto rest = static_cast<int64_t>(target - s.gpr[kRsp]);
  const int64_t scale = in.operands[in.memory_operand()].mem.scale;
  s.gpr[index] = static_cast<uint64_t>(rest / scale);
  s.gpr[kRsp] += static_cast<uint64_t>(rest % scale);
  if (in.raw.address_width == 32) s.gpr[index] ^= r.next() << 32;
  return true;
}

}  // namespace

uint64_t choose_target(Random& r, const Decoded& in) {
  const ZydisDecodedOperand& o = in.operands[in.memory_operand()];
  const unsigned size = o.size == 0 ? 8 : o.size / 8u;
  if (r.percent(8)) return awkward_target(r, size);
  const unsigned span = wants_big_alignment(in) ? 640 : size;
  const uint64_t room = kDataWindow - (span < kDataWindow ? span : kDataWindow - 1);
  uint64_t at = kDataWindowAt + r.below(room);
  if (r.percent(25))
    at = kDataWindowAt + kDataWindow / 2 - r.below(size + 1);  // around the boundary
  if (wants_big_alignment(in)) {
    if (at > kDataWindowAt + room) at = kDataWindowAt + room;
    return r.percent(90) ? at & ~63ull : at;
  }
  if (size >= 16 && size != 28 && r.percent(75)) return at & ~15ull;
  return r.percent(50) ? at & ~uint64_t{7} : at;
}

bool aim_memory(Random& r, const Decoded& in, uint8_t* code, uint64_t address, uint64_t target,
                Snapshot& s) {
  const auto& mem = in.operands[in.memory_operand()].mem;
  if (mem.type == ZYDIS_MEMOP_TYPE_AGEN && r.percent(50)) return true;  // LEA: anything goes
  if (mem.segment == ZYDIS_REGISTER_FS) return false;
  if (mem.segment == ZYDIS_REGISTER_GS) target -= kGsBase;
  const auto disp = static_cast<uint64_t>(mem.disp.has_displacement ? mem.disp.value : 0);
  if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
    return patch(code, in, static_cast<int64_t>(target - (address + in.raw.length)));
  }
  const int base = gpr_number(mem.base), index = gpr_number(mem.index);
  if (base < 0 && index < 0) {  // absolute; MOV AL, moffs has 64 bits
    if (in.raw.raw.disp.size == 64) {
      std::memcpy(code + in.raw.raw.disp.offset, &target, 8);
      return true;
    }
    return patch(code, in, static_cast<int64_t>(target));
  }
  if (base == index) return false;
  // XSAVE takes its mask from there.
  const auto is_mask = [](int n) { return n == kRax || n == kRdx; };
  if (wants_big_alignment(in) && (is_mask(base) || is_mask(index))) return false;
  // The count of a 16-bit double shift must stay small.
  const bool counted = in.mnemonic() == ZYDIS_MNEMONIC_SHLD || in.mnemonic() == ZYDIS_MNEMONIC_SHRD;
  if (counted && (base == kRcx || index == kRcx)) return false;
  if (base < 0) {
    s.gpr[index] = r.below(1 << 16);
    return patch(code, in, static_cast<int64_t>(target - s.gpr[index] * mem.scale));
  }
  if (base == kRsp) return aim_stack_pointer(r, in, target - disp, index, s);
  uint64_t sum = disp;
  if (index >= 0) sum += s.gpr[index] * mem.scale;
  s.gpr[base] = target - sum;
  if (in.raw.address_width == 32) s.gpr[base] ^= r.next() << 32;
  return true;
}

void direct(Random& r, const Decoded& in, uint8_t* code, uint64_t slot, uint64_t address,
            uint64_t target, bool first, Snapshot& s) {
  if (target != 0) direct_memory_value(r, in, target, s);
  if (in.raw.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE) {
    direct_branch(r, in, code, slot, address, target, s);
  }
  if (in.raw.meta.category == ZYDIS_CATEGORY_STRINGOP ||
      in.raw.meta.category == ZYDIS_CATEGORY_IOSTRINGOP)
    direct_string(r, in, s);
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV: direct_division(r, in, s); break;
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B: direct_compare_exchange(r, in, target, s); break;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
      if (in.raw.operand_width == 16) s.gpr[kRcx] = (s.gpr[kRcx] & ~0xffull) | r.below(17);
      break;
    case ZYDIS_MNEMONIC_ENTER:
      patch_immediate(code, in, 0, r.below(r.percent(90) ? 100 : 65536));
      patch_immediate(code, in, 1, r.below(r.percent(90) ? 4 : 256));
      break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFQ:
      // Alignment checks stay off, traps are rare.
      poke(s, s.gpr[kRsp], r.next() & ~uint64_t{0x40000 | (r.percent(90) ? 0x100u : 0u)});
      break;
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
      if (first && r.percent(50)) s.gpr[kRcx] = r.below(3);
      break;
    case ZYDIS_MNEMONIC_XLAT:
      s.gpr[kRbx] = kDataWindowAt + r.below(kDataWindow) - (s.gpr[kRax] & 0xff);
      break;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
      s.gpr[kRax] = (s.gpr[kRax] & ~0xffull) | r.below(4);
      s.gpr[kRax] &= ~0xffff'ff00ull;
      s.gpr[kRdx] &= ~0xffff'ffffull;
      break;
    default: break;
  }
  if (bit_string(in) && in.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER && r.percent(85)) {
    const int n = gpr_number(in.operands[1].reg.value);
    if (n >= 0 && n != kRsp) s.gpr[n] = r.below(2000) - 1000;
  }
}

bool is_x87_compare(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_FCOM:
    case ZYDIS_MNEMONIC_FCOMP:
    case ZYDIS_MNEMONIC_FCOMPP:
    case ZYDIS_MNEMONIC_FUCOM:
    case ZYDIS_MNEMONIC_FUCOMP:
    case ZYDIS_MNEMONIC_FUCOMPP:
    case ZYDIS_MNEMONIC_FICOM:
    case ZYDIS_MNEMONIC_FICOMP:
    case ZYDIS_MNEMONIC_FTST: return true;
    default: return false;
  }
}

bool ends_stream(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_F2XM1:
    case ZYDIS_MNEMONIC_FYL2X:
    case ZYDIS_MNEMONIC_FYL2XP1:
    case ZYDIS_MNEMONIC_FPTAN:
    case ZYDIS_MNEMONIC_FPATAN:
    case ZYDIS_MNEMONIC_FSIN:
    case ZYDIS_MNEMONIC_FCOS:
    case ZYDIS_MNEMONIC_FSINCOS:
    case ZYDIS_MNEMONIC_FPREM:
    case ZYDIS_MNEMONIC_FPREM1:
    case ZYDIS_MNEMONIC_FCOMI:
    case ZYDIS_MNEMONIC_FCOMIP:
    case ZYDIS_MNEMONIC_FUCOMI:
    case ZYDIS_MNEMONIC_FUCOMIP:
    case ZYDIS_MNEMONIC_FCMOVB:
    case ZYDIS_MNEMONIC_FCMOVBE:
    case ZYDIS_MNEMONIC_FCMOVE:
    case ZYDIS_MNEMONIC_FCMOVNB:
    case ZYDIS_MNEMONIC_FCMOVNBE:
    case ZYDIS_MNEMONIC_FCMOVNE:
    case ZYDIS_MNEMONIC_FCMOVNU:
    case ZYDIS_MNEMONIC_FCMOVU:
    case ZYDIS_MNEMONIC_RCPPS:
    case ZYDIS_MNEMONIC_RCPSS:
    case ZYDIS_MNEMONIC_RSQRTPS:
    case ZYDIS_MNEMONIC_RSQRTSS:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFQ: return true;
    default: return false;
  }
}

}  // namespace us::differential
