#include "hv/kvm/cpuid_table.h"

#include <algorithm>
#include <fmt/format.h>

namespace us::hv::kvm {
namespace {

constexpr uint32_t kExtendedBase = 0x8000'0000, kHypervisorBase = 0x4000'0000;

// Leaves with subleaves, and how many of those are not zero. The topology leaf answers for any.
struct Indexed {
  uint32_t leaf;
  uint32_t subleaves;
};
constexpr Indexed kIndexed[] = {{4, 4}, {7, 1}, {0xb, 2}, {0xd, 1}};

uint32_t subleaves_of(uint32_t leaf) {
  for (const Indexed& i : kIndexed)
    if (i.leaf == leaf) return i.subleaves;
  return 0;
}

kvm_cpuid_entry2 entry_of(const Cpu& cpu, uint32_t leaf, uint32_t subleaf) {
  uint32_t out[4];
  cpuid(cpu, leaf, subleaf, out);
  kvm_cpuid_entry2 entry{};
  entry.function = leaf;
  entry.index = subleaf;
  if (subleaves_of(leaf) != 0) entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  entry.eax = out[0], entry.ebx = out[1], entry.ecx = out[2], entry.edx = out[3];
  return entry;
}

void hide_time_counter(kvm_cpuid_entry2& e) {
  constexpr uint32_t kTsc = 1u << 4, kTscDeadline = 1u << 24, kRdtscp = 1u << 27;
  if (e.function == 1) e.edx &= ~kTsc, e.ecx &= ~kTscDeadline;
  if (e.function == 0x15) e.eax = e.ebx = e.ecx = 0;
  if (e.function == 0x8000'0001) e.edx &= ~kRdtscp;
  if (e.function == 0x8000'0007) e.edx = 0;
}

const kvm_cpuid_entry2* find(std::span<const kvm_cpuid_entry2> table, uint32_t leaf,
                             uint32_t subleaf) {
  for (const kvm_cpuid_entry2& e : table) {
    const bool indexed = (e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0;
    if (e.function == leaf && (!indexed || e.index == subleaf)) return &e;
  }
  return nullptr;
}

void answer(const kvm_cpuid_entry2& e, uint32_t out[4]) {
  out[0] = e.eax, out[1] = e.ebx, out[2] = e.ecx, out[3] = e.edx;
}

// Bits that say what a processor can do, and the names of what each register of a leaf holds.
struct FeatureWord {
  uint32_t leaf, subleaf;
  unsigned reg;       // 0-3: EAX EBX ECX EDX
  uint32_t provided;  // by userspace, or recomputed by KVM
};
constexpr FeatureWord kFeatureWords[] = {
    // x2APIC, TSC deadline, OSXSAVE, hypervisor; APIC.
    {1, 0, 2, 1u << 21 | 1u << 24 | 1u << 27 | 1u << 31},
    {1, 0, 3, 1u << 9},
    // Fast REP MOVSB and its short form promise nothing that could be missed; FCS and FDS read as
    // zero on every part that has a usable counter, or are saved as they are. The rest of EDX is
    // speculation control: its MSRs are ours.
    {7, 0, 1, 1u << 9 | 1u << 13},
    {7, 0, 2, 0},
    {7, 0, 3, ~0u},
    {0xd, 0, 0, 0},
    {0x8000'0001, 0, 2, 0},
    {0x8000'0001, 0, 3, 0},
};

}  // namespace

std::vector<kvm_cpuid_entry2> cpuid_table(const Cpu& cpu, bool has_time_counter) {
  std::vector<kvm_cpuid_entry2> table;
  for (const uint32_t base : {uint32_t{0}, kHypervisorBase, kExtendedBase}) {
    const uint32_t last = entry_of(cpu, base, 0).eax;
    for (uint32_t leaf = base; leaf <= last; ++leaf) {
      const uint32_t subleaves = std::max(subleaves_of(leaf), 1u);
      for (uint32_t subleaf = 0; subleaf < subleaves; ++subleaf)
        table.push_back(entry_of(cpu, leaf, subleaf));
    }
  }
  if (!has_time_counter)
    for (kvm_cpuid_entry2& entry : table) hide_time_counter(entry);
  return table;
}

void cpuid_by_table(std::span<const kvm_cpuid_entry2> table, uint32_t leaf, uint32_t subleaf,
                    uint32_t out[4]) {
  std::fill_n(out, 4, 0u);
  const kvm_cpuid_entry2* e = find(table, leaf, subleaf);
  if (e == nullptr) {
    // Past the end of its range an Intel processor answers for the highest basic leaf.
    const uint32_t range =
        leaf >= kHypervisorBase && leaf < 0x5000'0000 ? leaf & 0xffff'ff00 : leaf & kExtendedBase;
    const kvm_cpuid_entry2* first = find(table, range, 0);
    const kvm_cpuid_entry2* basic = find(table, 0, 0);
    if (basic != nullptr && (first == nullptr || leaf > first->eax)) {
      leaf = basic->eax;
      e = find(table, leaf, subleaf);
    }
  }
  if (e != nullptr) return answer(*e, out);
  if (leaf != 0xb) return;
  if (const kvm_cpuid_entry2* one = find(table, leaf, 1))
    out[2] = subleaf & 0xff, out[3] = one->edx;
}

std::vector<std::string> missing_features(std::span<const kvm_cpuid_entry2> table,
                                          std::span<const kvm_cpuid_entry2> host) {
  static constexpr const char* kRegisters[] = {"EAX", "EBX", "ECX", "EDX"};
  std::vector<std::string> missing;
  for (const FeatureWord& word : kFeatureWords) {
    uint32_t ours[4] = {}, theirs[4] = {};
    if (const auto* e = find(table, word.leaf, word.subleaf)) answer(*e, ours);
    if (const auto* e = find(host, word.leaf, word.subleaf)) answer(*e, theirs);
    const uint32_t lacking = ours[word.reg] & ~theirs[word.reg] & ~word.provided;
    for (unsigned bit = 0; bit < 32; ++bit)
      if ((lacking >> bit & 1) != 0)
        missing.push_back(
            fmt::format("CPUID.{:X}H:{} bit {}", word.leaf, kRegisters[word.reg], bit));
  }
  return missing;
}

}  // namespace us::hv::kvm
