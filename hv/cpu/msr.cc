// Model-specific registers: what an operating system expects of a processor with our CPUID. SDM 4.
#include "hv/core/clock.h"
#include "hv/cpu/mmu.h"
#include "hv/cpu/system.h"

namespace us::hv {
namespace {

namespace msr {
constexpr uint32_t kTsc = 0x10, kPlatformId = 0x17, kApicBase = 0x1b, kPowerOn = 0x2a,
                   kSmiCount = 0x34, kFeatureControl = 0x3a, kSpecCtrl = 0x48, kPredCmd = 0x49,
                   kMicrocodeUpdate = 0x79, kMicrocodeRevision = 0x8b, kPlatformInfo = 0xce,
                   kMtrrCap = 0xfe, kArchCapabilities = 0x10a, kSysenterCs = 0x174,
                   kSysenterEsp = 0x175, kSysenterEip = 0x176, kMcgCap = 0x179, kMcgStatus = 0x17a,
                   kPerfStatus = 0x198, kPerfCtl = 0x199, kThermStatus = 0x19c, kMiscEnable = 0x1a0,
                   kPrefetchControl = 0x1a4, kEnergyBias = 0x1b0, kDebugCtl = 0x1d9,
                   kMtrrVariable = 0x200, kMtrrFix64k = 0x250, kMtrrFix16k = 0x258,
                   kMtrrFix4k = 0x268, kPat = 0x277, kMtrrDefType = 0x2ff, kTscDeadline = 0x6e0,
                   kX2apic = 0x800, kEfer = 0xc000'0080, kStar = 0xc000'0081, kLstar = 0xc000'0082,
                   kCstar = 0xc000'0083, kSfmask = 0xc000'0084, kFsBase = 0xc000'0100,
                   kGsBase = 0xc000'0101, kKernelGsBase = 0xc000'0102, kTscAux = 0xc000'0103;
}

// None of the speculation bugs applies: RDCL_NO, IBRS_ALL, SKIP_L1DFL, SSB_NO, MDS_NO, PSCHANGE_NO,
// TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
constexpr uint64_t kArchCapabilities =
    1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 | 1ull << 13 |
    1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 | 1ull << 27 | 1ull << 62;

constexpr uint64_t kMicrocode = uint64_t{0x1f} << 32;
constexpr uint64_t kMtrrCapabilities = 8 | 1 << 8 | 1 << 10;  // 8 variable, fixed, write-combining
constexpr uint64_t kBusRatio = kTscHz / 100'000'000;          // of 100 MHz
constexpr uint64_t kUnavailable = 1 << 11 | 1 << 12;          // MISC_ENABLE: no BTS, no PEBS
constexpr unsigned kVariableMtrrs = 8;

bool refuse(Cpu& c) { return raise(c, kGeneralProtection, 0); }

bool on_bus(uint32_t index) {
  return index == msr::kApicBase || index == msr::kTscDeadline ||
         (index >= msr::kX2apic && index <= msr::kX2apic + 0xff);
}

// The register's place if it is one that simply keeps what is written; null otherwise.
uint64_t* plain(Cpu& c, uint32_t index) {
  switch (index) {
    case msr::kSysenterCs: return &c.msr.sysenter_cs;
    case msr::kSysenterEsp: return &c.msr.sysenter_esp;
    case msr::kSysenterEip: return &c.msr.sysenter_eip;
    case msr::kStar: return &c.msr.star;
    case msr::kLstar: return &c.msr.lstar;
    case msr::kCstar: return &c.msr.cstar;
    case msr::kSfmask: return &c.msr.sfmask;
    case msr::kFsBase: return &c.seg[kFs].base;
    case msr::kGsBase: return &c.seg[kGs].base;
    case msr::kKernelGsBase: return &c.msr.kernel_gs_base;
    case msr::kTscAux: return &c.msr.tsc_aux;
    case msr::kSpecCtrl: return &c.msr.spec_ctrl;
    case msr::kPat: return &c.msr.pat;
    case msr::kDebugCtl: return &c.msr.debugctl;
    case msr::kMcgStatus: return &c.msr.mcg_status;
    case msr::kMiscEnable: return &c.msr.misc_enable;
    case msr::kMtrrDefType: return &c.msr.mtrr_def_type;
    case msr::kMtrrFix64k: return &c.msr.mtrr_fixed[0];
    case msr::kMtrrFix16k:
    case msr::kMtrrFix16k + 1: return &c.msr.mtrr_fixed[1 + index - msr::kMtrrFix16k];
    default: break;
  }
  if (index >= msr::kMtrrFix4k && index < msr::kMtrrFix4k + 8)
    return &c.msr.mtrr_fixed[3 + index - msr::kMtrrFix4k];
  if (index >= msr::kMtrrVariable && index < msr::kMtrrVariable + 2 * kVariableMtrrs) {
    const unsigned pair = (index - msr::kMtrrVariable) / 2;
    return (index & 1) != 0 ? &c.msr.mtrr_mask[pair] : &c.msr.mtrr_base[pair];
  }
  return nullptr;
}

bool memory_type(uint64_t type, bool uncached_minus) {
  return type == 0 || type == 1 || type == 4 || type == 5 || type == 6 ||
         (uncached_minus && type == 7);
}

bool all_types(uint64_t value, bool uncached_minus) {
  for (unsigned shift = 0; shift < 64; shift += 8)
    if (!memory_type(value >> shift & 0xff, uncached_minus)) return false;
  return true;
}

bool fits_mtrr(uint32_t index, uint64_t value) {
  if (index >= msr::kMtrrFix64k && index < msr::kMtrrFix4k + 8) return all_types(value, false);
  if (index == msr::kMtrrDefType)
    return (value & ~uint64_t{0xcff}) == 0 && memory_type(value & 0xff, false);
  if ((value >> kPhysicalBits) != 0) return false;
  if ((index & 1) != 0) return (value & 0x7ff) == 0;
  return (value & 0xf00) == 0 && memory_type(value & 0xff, false);
}

// Whether `value` may be written to the plain register `index`.
bool fits(uint32_t index, uint64_t value) {
  switch (index) {
    case msr::kSysenterCs:
    case msr::kStar:
    case msr::kMiscEnable: return true;
    case msr::kSysenterEsp:
    case msr::kSysenterEip:
    case msr::kLstar:
    case msr::kCstar:
    case msr::kFsBase:
    case msr::kGsBase:
    case msr::kKernelGsBase: return canonical(value);
    case msr::kSfmask:
    case msr::kTscAux: return (value >> 32) == 0;
    case msr::kSpecCtrl: return (value & ~uint64_t{7}) == 0;
    case msr::kPat: return all_types(value, true);
    case msr::kDebugCtl: return (value & ~uint64_t{0xffff}) == 0;
    case msr::kMcgStatus: return value == 0;
    default: return fits_mtrr(index, value);
  }
}

// Registers that always read the same. False: no such register.
bool fixed_value(uint32_t index, uint64_t& value) {
  switch (index) {
    case msr::kPlatformId:
    case msr::kPowerOn:
    case msr::kSmiCount:
    case msr::kMcgCap:
    case msr::kThermStatus:
    case msr::kPrefetchControl: value = 0; return true;
    case msr::kFeatureControl: value = 1; return true;  // locked, VMX off
    case msr::kMicrocodeRevision: value = kMicrocode; return true;
    case msr::kPlatformInfo: value = kBusRatio << 8 | kBusRatio << 40; return true;
    case msr::kMtrrCap: value = kMtrrCapabilities; return true;
    case msr::kArchCapabilities: value = kArchCapabilities; return true;
    case msr::kPerfStatus:
    case msr::kPerfCtl: value = kBusRatio << 8; return true;
    case msr::kEnergyBias: value = 6; return true;
    default: return false;
  }
}

// Writes that are accepted and forgotten.
bool swallowed(uint32_t index, uint64_t value) {
  switch (index) {
    case msr::kPredCmd: return (value & ~uint64_t{1}) == 0;
    case msr::kMicrocodeUpdate:
    case msr::kMicrocodeRevision:
    case msr::kPerfCtl:
    case msr::kThermStatus:
    case msr::kPrefetchControl:
    case msr::kEnergyBias: return true;
    default: return false;
  }
}

bool write_efer(Cpu& c, uint64_t value) {
  constexpr uint64_t kKnown = efer::kSce | efer::kLme | efer::kLma | efer::kNxe;
  if ((value & ~kKnown) != 0) return refuse(c);
  const bool paging = (c.cr0 & cr0::kPg) != 0;
  if (paging && ((value ^ c.efer) & efer::kLme) != 0) return refuse(c);
  value = (value & ~efer::kLma) | (c.efer & efer::kLma);
  const uint64_t changed = value ^ c.efer;
  c.efer = value;
  if ((changed & efer::kNxe) != 0) flush_tlb_all(c);
  update_mode(c);
  return true;
}

}  // namespace

bool read_msr(Cpu& c, uint32_t index, uint64_t& value) {
  if (on_bus(index)) return c.bus.msr_read(index, value) || refuse(c);
  if (const uint64_t* at = plain(c, index)) {
    value = *at | (index == msr::kMiscEnable ? kUnavailable : 0);
    return true;
  }
  if (index == msr::kTsc) {
    value = c.bus.tsc(Branches(c.branches)).value;
    return true;
  }
  if (index == msr::kEfer) {
    value = c.efer;
    return true;
  }
  return fixed_value(index, value) || refuse(c);
}

bool write_msr(Cpu& c, uint32_t index, uint64_t value) {
  if (on_bus(index)) return c.bus.msr_write(index, value) || refuse(c);
  if (uint64_t* at = plain(c, index)) {
    if (!fits(index, value)) return refuse(c);
    *at = value;
    return true;
  }
  if (index == msr::kTsc) {
    c.bus.set_tsc(Branches(c.branches), GuestTsc(value));
    return true;
  }
  if (index == msr::kEfer) return write_efer(c, value);
  return swallowed(index, value) || refuse(c);
}

}  // namespace us::hv
