#include "tests/differential/compare.h"

#include <cstdlib>
#include <cstring>
#include <fmt/format.h>

namespace us::differential {
namespace {

constexpr uint64_t kResume = 1 << 16;  // RF, set in the image an exception pushes
constexpr uint64_t kArithmetic = 0x8d5;
constexpr uint32_t kPrecision = 0x20;  // MXCSR.PE
constexpr uint16_t kC0 = 0x100, kC1 = 0x200, kC2 = 0x400, kC3 = 0x4000;

enum class Quirk {
  kNone,
  kTranscendental,  // vendors' polynomials differ in the last bits, and C1 with them
  kTrigonometric,   // ... and in how exactly large arguments are reduced
  kDomain,          // ... and in what they make of operands outside the domain
  kRemainder,       // how far a partial remainder goes is open. SDM 2 "FPREM"
  kKeepsC1,         // AMD leaves C1 where Intel clears it
  kCompare,         // an unmasked compare: the manual keeps codes and flags, AMD sets them
  kApproximation,   // RCPPS and RSQRTPS promise 12 bits only
  kArea,            // FXSAVE, XSAVE: instruction pointers, reserved bytes
  kEnvironment      // FNSTENV, FNSAVE: instruction pointers
};

Quirk quirk_of(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_F2XM1:
    case ZYDIS_MNEMONIC_FYL2X:
    case ZYDIS_MNEMONIC_FPATAN: return Quirk::kTranscendental;
    case ZYDIS_MNEMONIC_FYL2XP1: return Quirk::kDomain;
    case ZYDIS_MNEMONIC_FPTAN:
    case ZYDIS_MNEMONIC_FSIN:
    case ZYDIS_MNEMONIC_FCOS:
    case ZYDIS_MNEMONIC_FSINCOS: return Quirk::kTrigonometric;
    case ZYDIS_MNEMONIC_FPREM:
    case ZYDIS_MNEMONIC_FPREM1: return Quirk::kRemainder;
    case ZYDIS_MNEMONIC_FCMOVB:
    case ZYDIS_MNEMONIC_FCMOVBE:
    case ZYDIS_MNEMONIC_FCMOVE:
    case ZYDIS_MNEMONIC_FCMOVNB:
    case ZYDIS_MNEMONIC_FCMOVNBE:
    case ZYDIS_MNEMONIC_FCMOVNE:
    case ZYDIS_MNEMONIC_FCMOVNU:
    case ZYDIS_MNEMONIC_FCMOVU:
    case ZYDIS_MNEMONIC_FCOMI:
    case ZYDIS_MNEMONIC_FCOMIP:
    case ZYDIS_MNEMONIC_FUCOMI:
    case ZYDIS_MNEMONIC_FUCOMIP: return Quirk::kKeepsC1;
    case ZYDIS_MNEMONIC_RCPPS:
    case ZYDIS_MNEMONIC_RCPSS:
    case ZYDIS_MNEMONIC_RSQRTPS:
    case ZYDIS_MNEMONIC_RSQRTSS: return Quirk::kApproximation;
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64: return Quirk::kArea;
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE: return Quirk::kEnvironment;
    default: return is_x87_compare(m) ? Quirk::kCompare : Quirk::kNone;
  }
}

void same_status(const Snapshot& native, Snapshot& soft, unsigned bits) {
  soft.fsw = static_cast<uint16_t>((soft.fsw & ~bits) | (native.fsw & bits));
}

void same_register(const Snapshot& native, Snapshot& soft, unsigned i) {
  soft.st[i] = native.st[i];
}

void same_x87(const Snapshot& native, Snapshot& soft) {
  soft.fsw = native.fsw;
  soft.ftw = native.ftw;
  std::memcpy(soft.st, native.st, sizeof soft.st);
}

// Within a few units of the last place, or of the least denormal.
bool close(const Snapshot& a, const Snapshot& b, unsigned i) {
  const auto& x = a.st[i];
  const auto& y = b.st[i];
  if (x.exponent == y.exponent) {
    const uint64_t distance =
        x.mantissa > y.mantissa ? x.mantissa - y.mantissa : y.mantissa - x.mantissa;
    return distance <= 4;
  }
  const int step = (x.exponent & 0x7fff) - (y.exponent & 0x7fff);
  return ((x.exponent ^ y.exponent) & 0x8000) == 0 && std::abs(step) == 1;
}

void transcendental(const Snapshot& before, const Snapshot& native, Snapshot& soft, bool angle) {
  // C1 only says which way the last bit went; inexact and underflow follow from it.
  same_status(native, soft, kC1 | 0x30 | 0x8080);
  const unsigned exponent = before.st[0].exponent & 0x7fff;
  const bool large = angle && exponent >= 0x3ffd;
  for (unsigned i = 0; i < 2; ++i) {
    if (large || close(native, soft, i)) same_register(native, soft, i);
  }
}

void approximation(const Test& test, const Snapshot& native, Snapshot& soft) {
  const unsigned n = static_cast<unsigned>(
      ZydisRegisterGetId(test.steps[test.count - 1].in.operands[0].reg.value));
  for (unsigned i = 0; i < 4; ++i) {
    const float a = native.xmm[n].ps[i], b = soft.xmm[n].ps[i];
    if (std::abs(a - b) <= std::abs(a) * (1.5f / 2048)) soft.xmm[n].d[i] = native.xmm[n].d[i];
  }
}

// Makes bytes [from, to) from `at` equal, where they lie in the window.
void same_bytes(const Snapshot& native, Snapshot& soft, uint64_t at, unsigned from, unsigned to) {
  for (uint64_t a = at + from; a < at + to; ++a) {
    if (a >= kDataWindowAt && a < kDataWindowAt + kDataWindow)
      soft.data[a - kDataWindowAt] = native.data[a - kDataWindowAt];
  }
}

void area(const Test& test, const Snapshot& native, Snapshot& soft) {
  const uint64_t at = test.memory_at;
  same_bytes(native, soft, at, 5, 24);   // opcode and pointers
  same_bytes(native, soft, at, 28, 32);  // AMD has one bit more
  for (unsigned i = 0; i < 8; ++i) same_bytes(native, soft, at, 42 + 16 * i, 48 + 16 * i);
  same_bytes(native, soft, at, 416, 520);  // reserved, and which components are in use
}

void environment(const Test& test, const Snapshot& native, Snapshot& soft) {
  const bool narrow = test.steps[test.count - 1].in.raw.operand_width == 16;
  if (narrow) return same_bytes(native, soft, test.memory_at, 6, 14);
  same_bytes(native, soft, test.memory_at, 12, 28);
}

void allow(const Test& test, const Snapshot& before, Snapshot& native, Snapshot& soft) {
  const bool unmasked = ((before.fcw & soft.fcw & native.fcw) & 3) != 3;
  for (unsigned i = 0; i < test.count; ++i) {
    switch (quirk_of(test.steps[i].in.mnemonic())) {
      case Quirk::kNone: break;
      case Quirk::kTranscendental: transcendental(before, native, soft, false); break;
      case Quirk::kTrigonometric: transcendental(before, native, soft, true); break;
      case Quirk::kDomain:
        if (test.count > 1 || (before.st[0].exponent & 0x7fff) >= 0x3ffd) same_x87(native, soft);
        transcendental(before, native, soft, false);
        break;
      case Quirk::kRemainder:
        if ((soft.fsw & kC2) == 0 || (native.fsw & kC2) == 0) break;
        same_status(native, soft, kC0 | kC1 | kC3 | 0x30 | 0x8080);
        same_register(native, soft, 0);
        break;
      case Quirk::kKeepsC1:
        same_status(native, soft, kC1);
        if (unmasked) soft.rflags = (soft.rflags & ~kArithmetic) | (native.rflags & kArithmetic);
        [[fallthrough]];
      case Quirk::kCompare:
        if (unmasked) same_status(native, soft, kC0 | kC2 | kC3);
        break;
      case Quirk::kApproximation: approximation(test, native, soft); break;
      case Quirk::kArea: area(test, native, soft); break;
      case Quirk::kEnvironment: environment(test, native, soft); break;
    }
  }
}

// The flags that nobody defines where the test ended: those after the last finished step, and those
// that the step which did not finish (a repeated one) may have left.
uint64_t undefined_flags(const Test& test, const Snapshot& end) {
  uint64_t undefined = 0, before = 0;
  for (unsigned i = 0; i < test.count; ++i) {
    const Step& step = test.steps[i];
    // Elsewhere than in the slot: a jump went there, so all steps are done.
    if (end.rip >= test.slot && end.rip < test.slot + step.offset) break;
    undefined = step.undefined_flags | (end.rip == test.slot + step.offset ? before : 0);
    before = step.undefined_flags;
  }
  return undefined;
}

// The step at which the test ended by a fault, or null.
const Step* stopped_at(const Test& test, const Snapshot& end) {
  for (unsigned i = 0; i < test.count; ++i) {
    if (end.rip == test.slot + test.steps[i].offset) return &test.steps[i];
  }
  return nullptr;
}

// Where a fault leaves different things behind on different processors.
void allow_fault(const Test& test, const Snapshot& native, Snapshot& soft) {
  const Step* step = stopped_at(test, native);
  if (step == nullptr) return;
  // A repeated CMPS or SCAS that faults keeps the flags it started with (SDM 2 "REP"); on AMD they
  // are those of the last iteration.
  if (step->in.raw.meta.category == ZYDIS_CATEGORY_STRINGOP)
    soft.rflags = (soft.rflags & ~kArithmetic) | (native.rflags & kArithmetic);
  // With overflow or underflow unmasked, inexact refers to the unbounded result (SDM 1 4.9.1.4);
  // here it is that of the masked response: known and allowed.
  if (native.vector == 19 && soft.vector == 19 && (native.mxcsr ^ soft.mxcsr) == kPrecision &&
      (soft.mxcsr & ~(soft.mxcsr >> 7) & (kPrecision - 1) & 0x18) != 0)
    soft.mxcsr = native.mxcsr;
  // What ENTER pushed before its last store faulted may stay.
  if (step->in.mnemonic() == ZYDIS_MNEMONIC_ENTER)
    std::memcpy(soft.stack, native.stack, kStackWindow);
  // Conversions to MMX registers that raise #XM, and MASKMOVQ that faults, have entered MMX mode on
  // AMD.
  const bool simd_error = native.vector == 19 && soft.vector == 19;
  if (simd_error || step->in.mnemonic() == ZYDIS_MNEMONIC_MASKMOVQ) same_x87(native, soft);
}

struct Report {
  std::string text;
  template <class T>
  void check(const char* name, const T& before, const T& native, const T& soft) {
    if (std::memcmp(&native, &soft, sizeof(T)) == 0) return;
    text +=
        fmt::format("  {:8} before {:#x}  host {:#x}  here {:#x}\n", name, before, native, soft);
  }
  void check_bytes(const char* name, const uint8_t* before, const uint8_t* native,
                   const uint8_t* soft, unsigned size, uint64_t at) {
    if (std::memcmp(native, soft, size) == 0) return;
    for (unsigned i = 0; i < size; ++i) {
      if (native[i] != soft[i])
        text += fmt::format("  {}[{:#x}] before {:02x}  host {:02x}  here {:02x}\n", name, at + i,
                            before[i], native[i], soft[i]);
    }
  }
};

constexpr const char* kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

bool memory_fault(const Snapshot& s) { return s.vector >= 12 && s.vector <= 14; }

// Instructions of several accesses: which of them faults first is open. CALL checks its target
// before or after it pushes.
bool many_accesses(const Decoded& in) {
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FBLD:
    case ZYDIS_MNEMONIC_FBSTP:
    case ZYDIS_MNEMONIC_CALL: return true;
    // Ten bytes go as eight and two.
    case ZYDIS_MNEMONIC_FLD:
    case ZYDIS_MNEMONIC_FSTP:
      return in.memory_operand() >= 0 && in.operands[in.memory_operand()].size == 80;
    default:
      return quirk_of(in.mnemonic()) == Quirk::kArea ||
             in.raw.meta.category == ZYDIS_CATEGORY_XSAVE ||
             in.raw.meta.category == ZYDIS_CATEGORY_STRINGOP;
  }
}

void check_end(Report& out, bool many, const Snapshot& before, Snapshot& native, Snapshot& soft) {
  out.check("rip", before.rip, native.rip, soft.rip);
  if (many && memory_fault(native) && memory_fault(soft)) return;
  out.check("vector", before.vector, native.vector, soft.vector);
  const bool both_page_faults = native.vector == 14 && soft.vector == 14;
  if (both_page_faults) {
    if (!many) out.check("cr2", before.cr2, native.cr2, soft.cr2);
    if (many && native.cr2 != soft.cr2) soft.error = native.error;
    // Linux calls every fault outside its user addresses a protection fault.
    if (native.cr2 >= 0x7fff'ffff'f000) soft.error |= 1;
  }
  if (native.vector == soft.vector) out.check("error", before.error, native.error, soft.error);
}

}  // namespace

std::string differences(const Test& test, const Snapshot& before, Snapshot& native,
                        Snapshot& soft) {
  // A MASKMOVQ that selects no byte may fault or not. SDM 2 "MASKMOVQ".
  const Step* at = stopped_at(test, native);
  const bool masked_move = at != nullptr && (at->in.mnemonic() == ZYDIS_MNEMONIC_MASKMOVQ ||
                                             at->in.mnemonic() == ZYDIS_MNEMONIC_MASKMOVDQU);
  if (masked_move && native.vector != soft.vector) return {};
  allow(test, before, native, soft);
  allow_fault(test, native, soft);
  const uint64_t ignored = undefined_flags(test, native) | kResume;
  soft.rflags = (soft.rflags & ~ignored) | (native.rflags & ignored);
  Report out;
  check_end(out, at != nullptr && many_accesses(at->in), before, native, soft);
  if (std::memcmp(native.gpr, soft.gpr, sizeof native.gpr) != 0) {
    for (unsigned i = 0; i < 16; ++i)
      out.check(kNames[i], before.gpr[i], native.gpr[i], soft.gpr[i]);
  }
  out.check("rflags", before.rflags, native.rflags, soft.rflags);
  out.check("fcw", before.fcw, native.fcw, soft.fcw);
  out.check("fsw", before.fsw, native.fsw, soft.fsw);
  out.check("ftw", before.ftw, native.ftw, soft.ftw);
  out.check("mxcsr", before.mxcsr, native.mxcsr, soft.mxcsr);
  for (unsigned i = 0; i < 8 && std::memcmp(native.st, soft.st, sizeof native.st) != 0; ++i) {
    out.check(fmt::format("st{}", i).c_str(), before.st[i].mantissa, native.st[i].mantissa,
              soft.st[i].mantissa);
    out.check(fmt::format("st{}.exp", i).c_str(), before.st[i].exponent, native.st[i].exponent,
              soft.st[i].exponent);
  }
  if (std::memcmp(native.xmm, soft.xmm, sizeof native.xmm) != 0) {
    for (unsigned i = 0; i < 32; ++i)
      out.check(fmt::format("xmm{}.{}", i / 2, i % 2).c_str(), before.xmm[i / 2].q[i % 2],
                native.xmm[i / 2].q[i % 2], soft.xmm[i / 2].q[i % 2]);
  }
  out.check_bytes("data", before.data, native.data, soft.data, kDataWindow, kDataWindowAt);
  out.check_bytes("stack", before.stack, native.stack, soft.stack, kStackWindow, kStackWindowAt);
  return out.text;
}

std::string describe(const Test& test, const Snapshot& before) {
  std::string text = fmt::format("test {} at {:#x}{}\n", test.number, before.rip,
                                 test.by_steps ? " (stepping)" : "");
  for (unsigned i = 0; i < test.count; ++i) {
    const Step& step = test.steps[i];
    std::string bytes;
    for (unsigned k = 0; k < step.in.raw.length; ++k)
      bytes += fmt::format("{:02x} ", test.code[step.offset + k]);
    text += fmt::format("  {:32} {}\n", bytes, disassemble(step.in, test.slot + step.offset));
  }
  return text;
}

}  // namespace us::differential
