// The software processor's CPUID as the table KVM answers from. KVM itself keeps OSXSAVE, the APIC
// bit and leaf 0xD's size up to date, as functions of guest state; everything else is as given.
#pragma once

#include <linux/kvm.h>
#include <span>
#include <string>
#include <vector>

#include "hv/cpu/cpu.h"

namespace us::hv::kvm {

// `cpu` answers the questions; its state must be that of a processor after reset.
// `has_time_counter` false hides the time stamp counter, RDTSCP and what counts by it, for guests
// that agree not to look at it.
std::vector<kvm_cpuid_entry2> cpuid_table(const Cpu& cpu, bool has_time_counter);

// What KVM answers with this table: kvm_cpuid() of Linux, arch/x86/kvm/cpuid.c. For tests and
// models.
void cpuid_by_table(std::span<const kvm_cpuid_entry2> table, uint32_t leaf, uint32_t subleaf,
                    uint32_t out[4]);

// Features of our table that `host` (KVM_GET_SUPPORTED_CPUID) does not have, by name; those that
// userspace provides, such as the local APIC's, are not asked for.
std::vector<std::string> missing_features(std::span<const kvm_cpuid_entry2> table,
                                          std::span<const kvm_cpuid_entry2> host);

}  // namespace us::hv::kvm
