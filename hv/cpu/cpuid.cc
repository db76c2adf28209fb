// What the virtual processor says it is: x86-64-v2, the same on every host. SDM 2A "CPUID".
//
// Everything reported is implemented by the software processor; a backend that runs on real
// hardware masks down to this table.
#include <algorithm>
#include <cstring>

#include "hv/core/clock.h"
#include "hv/cpu/cpu.h"
#include "hv/cpu/mmu.h"

namespace us::hv {
namespace {

constexpr uint32_t bit(unsigned n) { return 1u << n; }

constexpr uint32_t kMaxBasic = 0x16, kMaxExtended = 0x8000'0008, kMaxHypervisor = 0x4000'0000;

// Family 6, model 0x2c, stepping 2: the last server model without AVX. Programs built by GCC with
// target_clones("arch=...") choose by the model alone, without looking at the features.
constexpr uint32_t kSignature = 0x0002'06c2;

constexpr uint32_t kFeatures1Ecx = bit(0) |   // SSE3
                                   bit(9) |   // SSSE3
                                   bit(13) |  // CMPXCHG16B
                                   bit(19) |  // SSE4.1
                                   bit(20) |  // SSE4.2
                                   bit(21) |  // x2APIC
                                   bit(23) |  // POPCNT
                                   bit(24) |  // TSC deadline timer
                                   bit(26) |  // XSAVE
                                   bit(31);   // a hypervisor is there
constexpr uint32_t kOsxsave = bit(27);

constexpr uint32_t kFeatures1Edx = bit(0) |   // x87
                                   bit(2) |   // DE
                                   bit(3) |   // PSE
                                   bit(4) |   // TSC
                                   bit(5) |   // MSR
                                   bit(6) |   // PAE
                                   bit(7) |   // MCE
                                   bit(8) |   // CMPXCHG8B
                                   bit(11) |  // SYSENTER
                                   bit(12) |  // MTRR
                                   bit(13) |  // PGE
                                   bit(14) |  // MCA
                                   bit(15) |  // CMOV
                                   bit(16) |  // PAT
                                   bit(17) |  // PSE-36
                                   bit(19) |  // CLFLUSH
                                   bit(23) |  // MMX
                                   bit(24) |  // FXSAVE
                                   bit(25) |  // SSE
                                   bit(26);   // SSE2

constexpr uint32_t kApic = bit(9);

constexpr uint32_t kFeatures7Ebx = bit(0) |   // FSGSBASE
                                   bit(7) |   // SMEP
                                   bit(9) |   // fast REP MOVSB and STOSB
                                   bit(13) |  // FCS and FDS read as zero
                                   bit(20);   // SMAP
constexpr uint32_t kFeatures7Ecx = bit(2);    // UMIP
constexpr uint32_t kFeatures7Edx = bit(4) |   // fast short REP MOVSB
                                   bit(26) |  // SPEC_CTRL and PRED_CMD
                                   bit(27) |  // STIBP
                                   bit(29) |  // ARCH_CAPABILITIES
                                   bit(31);   // SSBD

void set(uint32_t out[4], uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

uint32_t word(const char* text) {
  uint32_t value;
  std::memcpy(&value, text, 4);
  return value;
}

// Type 1 data, 2 code, 3 both; one processor, one core.
void cache(uint32_t out[4], unsigned type, unsigned level, unsigned ways, unsigned sets) {
  constexpr unsigned kLine = 64;
  set(out, type | level << 5 | bit(8), (ways - 1) << 22 | (kLine - 1), sets - 1, 0);
}

void leaf_caches(uint32_t subleaf, uint32_t out[4]) {
  switch (subleaf) {
    case 0: return cache(out, 1, 1, 8, 64);      // 32 KiB
    case 1: return cache(out, 2, 1, 8, 64);      // 32 KiB
    case 2: return cache(out, 3, 2, 16, 1024);   // 1 MiB
    case 3: return cache(out, 3, 3, 16, 16384);  // 16 MiB
    default: return;
  }
}

// One thread in one core in one package, x2APIC id 0.
void leaf_topology(uint32_t subleaf, uint32_t out[4]) {
  const uint32_t level = subleaf < 2 ? (subleaf + 1) << 8 : 0;
  set(out, 0, subleaf < 2 ? 1 : 0, (subleaf & 0xff) | level, 0);
}

void leaf_xsave(uint32_t subleaf, uint32_t out[4]) {
  constexpr uint32_t kLegacyAndHeader = 512 + 64;
  if (subleaf == 0) set(out, 3, kLegacyAndHeader, kLegacyAndHeader, 0);
}

// SDM 3A 11.4.3: CPUID hides the local APIC while IA32_APIC_BASE disables it.
bool apic_enabled(const Cpu& c) {
  constexpr uint32_t kApicBase = 0x1b;
  constexpr uint64_t kGlobalEnable = 1 << 11;
  uint64_t base;
  return !c.bus.msr_read(kApicBase, base) || (base & kGlobalEnable) != 0;
}

void basic_leaf(const Cpu& c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  constexpr uint32_t kMhz = kTscHz / 1'000'000;
  switch (leaf) {
    case 0: return set(out, kMaxBasic, word("Genu"), word("ntel"), word("ineI"));
    case 1:
      return set(out, kSignature, 1u << 16 | 8u << 8,
                 kFeatures1Ecx | ((c.cr4 & cr4::kOsxsave) != 0 ? kOsxsave : 0),
                 kFeatures1Edx | (apic_enabled(c) ? kApic : 0));
    case 2: return set(out, 0x00ff'0001, 0, 0, 0);  // 0xff: see leaf 4
    case 4: return leaf_caches(subleaf, out);
    case 6: return set(out, bit(2), 0, 0, 0);  // the APIC timer never stops
    case 7:
      if (subleaf == 0) set(out, 0, kFeatures7Ebx, kFeatures7Ecx, kFeatures7Edx);
      return;
    case 0xb: return leaf_topology(subleaf, out);
    case 0xd: return leaf_xsave(subleaf, out);
    case 0x15: return set(out, 1, kTscHz / kCrystalHz, kCrystalHz, 0);
    case 0x16: return set(out, kMhz, kMhz, 100, 0);
    default: return;
  }
}

void brand_leaf(unsigned part, uint32_t out[4]) {
  char text[48] = "Understudy Virtual CPU";
  const char* at = text + part * 16;
  set(out, word(at), word(at + 4), word(at + 8), word(at + 12));
}

void extended_leaf(uint32_t leaf, uint32_t out[4]) {
  switch (leaf) {
    case 0x8000'0000: return set(out, kMaxExtended, 0, 0, 0);
    case 0x8000'0001:
      // LAHF in 64-bit mode; SYSCALL, NX, 1 GiB pages, RDTSCP, long mode.
      return set(out, 0, 0, bit(0), bit(11) | bit(20) | bit(26) | bit(27) | bit(29));
    case 0x8000'0002:
    case 0x8000'0003:
    case 0x8000'0004: return brand_leaf(leaf - 0x8000'0002, out);
    case 0x8000'0006: return set(out, 0, 0, 1024u << 16 | 8u << 12 | 64, 0);
    case 0x8000'0007: return set(out, 0, 0, 0, bit(8));  // invariant time stamp counter
    case 0x8000'0008: return set(out, kPhysicalBits | 48u << 8, 0, 0, 0);
    default: return;
  }
}

}  // namespace

void cpuid(const Cpu& c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  set(out, 0, 0, 0, 0);
  if (leaf <= kMaxBasic) return basic_leaf(c, leaf, subleaf, out);
  if (leaf >= 0x8000'0000 && leaf <= kMaxExtended) return extended_leaf(leaf, out);
  if (leaf == kMaxHypervisor)
    return set(out, kMaxHypervisor, word("Unde"), word("rstu"), word("dyVM"));
  if ((leaf >> 16) == 0x4000) return;
  // Past the end Intel processors answer as for the highest basic leaf.
  basic_leaf(c, kMaxBasic, subleaf, out);
}

}  // namespace us::hv
