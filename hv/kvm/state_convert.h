// KVM's views of a processor to and from ours (hv/cpu/state.h).
#pragma once

#include <linux/kvm.h>
#include <span>

#include "hv/cpu/state.h"
#include "hv/kvm/kvm_host.h"

namespace us::hv::kvm {

// General registers, RIP and RFLAGS. RF, which the processor sets and clears by itself, reads as 0.
void from_regs(const kvm_regs& in, CpuState& out);
kvm_regs to_regs(const CpuState& in);

// Segments, tables, control registers, EFER, CPL.
void from_sregs(const kvm_sregs& in, CpuState& out);
// `base` supplies what is not in our state: CR8, APIC base.
kvm_sregs to_sregs(const CpuState& in, const kvm_sregs& base);

// x87 and SSE. Components in their initial state, which XSAVE may leave out, read as that.
void from_xsave(const XsaveArea& in, CpuState& out);
void to_xsave(const CpuState& in, XsaveArea& out);

// The MSRs that KVM keeps in the processor for the guest, in a fixed order.
std::span<const uint32_t> kept_msrs();
void from_msrs(std::span<const kvm_msr_entry> in, CpuState& out);
void to_msrs(const CpuState& in, std::span<kvm_msr_entry> out);

// The entries of a PAE page-directory-pointer table as MOV CR3 loads them are in no structure of
// KVM's that every kernel has.

// The filter that lets the guest at exactly kept_msrs() and sends all others to us. `bitmaps`
// outlives the ioctl.
struct MsrFilter {
  kvm_msr_filter filter{};
  uint8_t low[0x178 / 8 + 1] = {};  // from 0
  uint8_t high[0x108 / 8] = {};     // from 0xc0000000 + kHighBase
  MsrFilter();
  MsrFilter(const MsrFilter&) = delete;
  MsrFilter& operator=(const MsrFilter&) = delete;
  bool allows(uint32_t index) const;
};

}  // namespace us::hv::kvm
