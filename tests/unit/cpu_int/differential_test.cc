// The integer, string and stack families against the host's own processor, with seeded random
// instructions and states. What the manual leaves undefined is not compared.
#include <Zydis/Zydis.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/unit/cpu_int/forms.h"
#include "tests/unit/cpu_int/guest.h"
#include "tests/unit/cpu_int/host.h"

namespace us::test {
namespace {

struct Decoded {
  ZydisDecodedInstruction raw;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  std::string text() const {
    ZydisFormatter formatter;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    char line[128] = "?";
    ZydisFormatterFormatInstruction(&formatter, &raw, operands, raw.operand_count_visible, line,
                                    sizeof line, 0, nullptr);
    return line;
  }
};

bool decode(std::span<const uint8_t> code, Decoded& out) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  return ZYAN_SUCCESS(
             ZydisDecoderDecodeFull(&decoder, code.data(), code.size(), &out.raw, out.operands)) &&
         out.raw.length == code.size();
}

bool is_any(ZydisMnemonic m, std::initializer_list<ZydisMnemonic> list) {
  for (const ZydisMnemonic each : list)
    if (m == each) return true;
  return false;
}

// The masked count of a shift or rotate; 0 for everything else.
unsigned shift_count(const Decoded& d, const Machine& before) {
  const bool two =
      is_any(d.raw.mnemonic,
             {ZYDIS_MNEMONIC_SHL, ZYDIS_MNEMONIC_SHR, ZYDIS_MNEMONIC_SAR, ZYDIS_MNEMONIC_ROL,
              ZYDIS_MNEMONIC_ROR, ZYDIS_MNEMONIC_RCL, ZYDIS_MNEMONIC_RCR});
  const bool three = is_any(d.raw.mnemonic, {ZYDIS_MNEMONIC_SHLD, ZYDIS_MNEMONIC_SHRD});
  if (!two && !three) return 0;
  const ZydisDecodedOperand& by = d.operands[three ? 2 : 1];
  const uint64_t count = by.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? by.imm.value.u : before.regs[1];
  return static_cast<unsigned>(count) & (d.operands[0].size == 64 ? 63 : 31);
}

uint64_t undefined_flags(const Decoded& d, const Machine& before) {
  const unsigned count = shift_count(d, before);
  const bool shift =
      is_any(d.raw.mnemonic, {ZYDIS_MNEMONIC_SHL, ZYDIS_MNEMONIC_SHR, ZYDIS_MNEMONIC_SAR,
                              ZYDIS_MNEMONIC_SHLD, ZYDIS_MNEMONIC_SHRD});
  if (count != 0) {
    uint64_t mask = (count != 1 ? 0x800u : 0u) | (shift ? 0x10u : 0u);
    if (shift && count >= d.operands[0].size) mask |= 1;
    return mask;
  }
  if (shift || d.raw.cpu_flags == nullptr) return 0;
  return d.raw.cpu_flags->undefined;
}

// Results the manual leaves open.
bool undefined_result(const Decoded& d, const Machine& before) {
  const unsigned count = shift_count(d, before);
  if (is_any(d.raw.mnemonic, {ZYDIS_MNEMONIC_SHLD, ZYDIS_MNEMONIC_SHRD}))
    return count > d.operands[0].size;
  // Processors differ in the upper half of a register that CMPXCHG found different.
  if (d.raw.mnemonic == ZYDIS_MNEMONIC_CMPXCHG)
    return d.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER && d.operands[0].size == 32;
  if (d.raw.mnemonic == ZYDIS_MNEMONIC_BSWAP) return d.operands[0].size == 16;
  return false;
}

enum class Way { kBlock, kStep, kFlagsDead };

class Comparison {
 public:
  explicit Comparison(uint64_t seed) : random_(seed) {}

  // False: the bytes were not an instruction worth comparing.
  bool one(const Form& form, Way way) {
    Sample s = make_sample(form, random_);
    Decoded d;
    if (!decode(s.code, d) || undefined_result(d, s.machine)) return false;
    Machine host = s.machine;
    std::vector<uint8_t> code = s.code;
    if (way == Way::kFlagsDead) code.insert(code.end(), {0x84, 0xc0});  // TEST AL, AL
    const Outcome outcome = host_.run(host, code);
    if (outcome == Outcome::kMemoryFault) return false;
    guest_.load(s.machine);
    const hv::StopReason reason = way == Way::kStep ? guest_.step(code) : guest_.run(code);
    Machine guest = guest_.store();
    const uint64_t open = way == Way::kFlagsDead && outcome == Outcome::kDone
                              ? 0x10  // AF after TEST
                              : undefined_flags(d, s.machine);
    host.flags &= ~open;
    guest.flags &= ~open;
    const bool faulted = reason == hv::StopReason::kShutdown || guest_.cpu().shutdown;
    const std::string seen = difference(host, guest);
    if (seen.empty() && faulted == (outcome == Outcome::kDivideError)) return true;
    report(d, s, seen, faulted);
    return true;
  }

 private:
  void report(const Decoded& d, const Sample& s, const std::string& seen, bool faulted) {
    std::string bytes;
    for (const uint8_t b : s.code) bytes += fmt::format(" {:02x}", b);
    FAIL(fmt::format("{} ({} ), flags {:#x} rax {:#x} rcx {:#x} rdx {:#x}:{}{}", d.text(), bytes,
                     s.machine.flags, s.machine.regs[0], s.machine.regs[1], s.machine.regs[2], seen,
                     faulted ? " (guest faulted)" : ""));
  }

  Random random_;
  Host host_;
  Guest guest_;
};

constexpr unsigned kSamplesPerForm = 1500;

void compare_all(uint64_t seed, Way way) {
  INFO("seed " << seed);
  Comparison comparison(seed);
  for (const Form& form : integer_forms()) {
    unsigned compared = 0;
    for (unsigned i = 0; i < kSamplesPerForm; ++i) compared += comparison.one(form, way);
    INFO("map " << static_cast<int>(form.map) << " opcode " << static_cast<int>(form.opcode));
    CHECK(compared > kSamplesPerForm / 8);
  }
}

}  // namespace

TEST_CASE("every integer, string and stack form run as a block leaves what the host leaves") {
  compare_all(20240611, Way::kBlock);
}

TEST_CASE("every form run by the stepper leaves what the host leaves") {
  compare_all(7919, Way::kStep);
}

TEST_CASE("a form whose flags are overwritten at once leaves the host's registers and memory") {
  compare_all(104729, Way::kFlagsDead);
}

}  // namespace us::test
