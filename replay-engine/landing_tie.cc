#include <optional>

#include "base/digest.h"
#include "replay-engine/landing.h"

namespace us::replay {
namespace {

constexpr uint64_t kStackWords = 6;  // SS, RSP, RFLAGS, CS, RIP and an error code. SDM 3A 6.14.2

// Where a linear address lies, by four-level paging and without touching accessed bits; empty: not
// mapped, or another kind of paging. SDM 3A 4.5.
std::optional<GuestPhys> translate(const hv::GuestMemory& memory, const hv::Registers& r,
                                   uint64_t address) {
  constexpr uint64_t kLongModeActive = 1 << 10, kPresent = 1, kLarge = 1 << 7;
  constexpr uint64_t kAddress = 0x000f'ffff'ffff'f000;
  if ((r.efer & kLongModeActive) == 0) return std::nullopt;
  uint64_t table = r.cr3 & kAddress;
  for (unsigned shift = 39; shift >= 12; shift -= 9) {
    uint64_t entry = 0;
    const GuestPhys at(table + ((address >> shift) & 511) * sizeof entry);
    if (!memory.read(at, {reinterpret_cast<uint8_t*>(&entry), sizeof entry})) return std::nullopt;
    if ((entry & kPresent) == 0) return std::nullopt;
    const uint64_t inside = (uint64_t{1} << shift) - 1;
    const bool leaf = shift == 12 || (shift < 39 && (entry & kLarge) != 0);
    if (leaf) return GuestPhys((entry & kAddress & ~inside) | (address & inside));
    table = entry & kAddress;
  }
  return std::nullopt;
}

}  // namespace

uint32_t tie_of(hv::Machine& machine) {
  const hv::Registers r = machine.vcpu().registers();
  ByteWriter bytes;
  for (const uint64_t value : r.gpr) bytes.put(value);
  for (const uint64_t value : {r.rflags, r.cr2, r.cr3, machine.interrupts_since_input()})
    bytes.put(value);
  bytes.put<uint8_t>(machine.vcpu().nmi_waiting());
  // Word by word: the frame may lie across two pages.
  for (uint64_t i = 0; i < kStackWords; ++i) {
    const uint64_t rsp = r.gpr[4] + i * sizeof(uint64_t);
    const auto where = translate(machine.memory(), r, rsp);
    uint64_t word = 0;
    if (where && machine.memory().read(*where, {reinterpret_cast<uint8_t*>(&word), sizeof word}))
      bytes.put(word);
  }
  return static_cast<uint32_t>(digest_of(bytes.bytes()).low);
}

}  // namespace us::replay
