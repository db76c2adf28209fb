// Every instruction form against the host's own processor.
#include <cstdlib>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <set>

#include "hv/cpu/sse_handlers.h"
#include "tests/unit/cpu_sse/encodings.h"
#include "tests/unit/cpu_sse/host_processor.h"

namespace us::test {
namespace {

// A seed of the day's choice replays a failure: US_TEST_SEED=n.
uint64_t seed() {
  const char* given = std::getenv("US_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : 20240917;
}

bool approximation(ZydisMnemonic m) {
  return m == ZYDIS_MNEMONIC_RCPPS || m == ZYDIS_MNEMONIC_RCPSS || m == ZYDIS_MNEMONIC_RSQRTPS ||
         m == ZYDIS_MNEMONIC_RSQRTSS;
}

// LDMXCSR takes whatever the window holds: its own tests. Fences and the like do nothing to see.
bool compared(const Encoding& e) {
  return !approximation(e.mnemonic) && e.mnemonic != ZYDIS_MNEMONIC_LDMXCSR;
}

Outcome outcome_of(const hv::Cpu& c) {
  if (c.exit == hv::Exit::kContinue) return Outcome::kDone;
  if (c.exit == hv::Exit::kFault && c.fault.vector == hv::kSimdError) return Outcome::kSimdError;
  if (c.exit == hv::Exit::kFault && c.fault.vector == hv::kGeneralProtection)
    return Outcome::kGeneralProtection;
  return Outcome::kUndefined;
}

unsigned random_offset(const Encoding& e, Random& random) {
  if (!e.memory && random() % 2 == 0) return 48;
  return random() % 3 == 0 ? random() % (kWindowSize - 16) : (random() % 7) * 16;
}

// Beside a SIMD exception processors may already have turned the x87 state to MMX. And PE, when
// overflow or underflow is unmasked, tells whether the result would be exact with a wider exponent;
// here it is what the masked response says.
void forget_free_choices(MachineState& expected, MachineState& seen, const MachineState& before) {
  expected.valid = seen.valid;
  expected.top = seen.top;
  const uint32_t unmasked = ~before.mxcsr >> 7 & 0x18;
  if ((expected.mxcsr & unmasked) != 0) {
    expected.mxcsr |= 0x20;
    seen.mxcsr |= 0x20;
  }
}

struct Comparison {
  unsigned runs = 0, faults = 0;
  std::string first_difference;
};

Comparison compare(Guest& guest, const Encoding& e, unsigned runs, bool traps, Random& random) {
  Comparison result;
  for (unsigned i = 0; i < runs && result.first_difference.empty(); ++i) {
    MachineState before = random_state(random);
    if (traps) before.mxcsr &= ~(random() & 0x1f80);
    const std::vector<uint8_t> code = encode(e, random, guest);
    const unsigned offset = random_offset(e, random);
    MachineState expected = before;
    const Outcome host = run_on_host(expected, code, offset);
    guest.load(before, offset);
    if (random() % 4 == 0) hv::flush_tlb_all(guest.cpu());
    REQUIRE(guest.run(code));
    MachineState seen = guest.store();
    if (host == Outcome::kSimdError) forget_free_choices(expected, seen, before);
    std::string words = difference(expected, seen);
    if (outcome_of(guest.cpu()) != host)
      words += fmt::format("  outcome: host {}, here {} (vector {})\n", static_cast<int>(host),
                           static_cast<int>(outcome_of(guest.cpu())), guest.cpu().fault.vector);
    ++result.runs;
    if (host != Outcome::kDone) ++result.faults;
    if (words.empty()) continue;
    hv::Insn in;
    (void)guest.decode(code, in, guest.cpu().mode);
    result.first_difference = fmt::format("{} [{:02x}] offset {} mxcsr {:x}\n{}", Guest::text(in),
                                          fmt::join(code, " "), offset, before.mxcsr, words);
    for (unsigned operand = 0; operand < in.visible(); ++operand)
      if (in.is_xmm(operand)) {
        const auto& x = before.xmm[static_cast<unsigned>(ZydisRegisterGetId(in.reg(operand)))];
        result.first_difference +=
            fmt::format("  operand {}: {:016x}'{:016x}\n", operand, x.q[1], x.q[0]);
      }
  }
  return result;
}

void compare_all(unsigned runs, bool traps) {
  Guest guest;
  Random random(seed());
  unsigned total = 0, faults = 0;
  for (const Encoding& e : all_encodings(guest)) {
    if (!compared(e)) continue;
    const Comparison c = compare(guest, e, runs, traps, random);
    total += c.runs;
    faults += c.faults;
    if (!c.first_difference.empty()) FAIL_CHECK("seed ", seed(), ": ", c.first_difference);
  }
  MESSAGE(total, " runs, ", faults, " of them faulted");
  CHECK(faults > 0);
}

}  // namespace

TEST_CASE("every instruction with masked exceptions gives what the host's processor gives") {
  compare_all(150, false);
}

TEST_CASE("every instruction with unmasked exceptions traps where the host's processor traps") {
  compare_all(150, true);
}

TEST_CASE("every MMX and SSE encoding has a handler, in 64-bit and in 32-bit mode") {
  Guest guest;
  std::set<ZydisMnemonic> mnemonics;
  const std::vector<Encoding> encodings = all_encodings(guest);
  Random random(seed());
  for (const Encoding& e : encodings) {
    const std::vector<uint8_t> code = encode(e, random, guest);
    hv::Insn in;
    REQUIRE(guest.decode(code, in, hv::Mode{hv::Mode::kCode64}));
    hv::Op op;
    CHECK_MESSAGE((guest.select(in, op).fn != nullptr), Guest::text(in));
    mnemonics.insert(in.mnemonic());
    const bool has_rex = (in.raw.attributes & ZYDIS_ATTRIB_HAS_REX) != 0;
    if (has_rex || !guest.decode(code, in, hv::Mode{hv::Mode::kCode32})) continue;
    CHECK_MESSAGE((guest.select(in, op).fn != nullptr), Guest::text(in));
  }
  MESSAGE(encodings.size(), " encodings of ", mnemonics.size(), " instructions");
  // And the other way round: the search found all that the tables know.
  for (const auto part : hv::sse::kAllRows)
    for (const hv::sse::Row& row : part())
      CHECK_MESSAGE(mnemonics.count(row.mnemonic) == 1, ZydisMnemonicGetString(row.mnemonic));
  CHECK(mnemonics.size() == 258);  // SDM 2, MMX to SSE4.2, without x87 and general registers
}

}  // namespace us::test
