#include "hv/kvm/state_convert.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "base/check.h"
#include "hv/cpu/flags.h"
#include "hv/cpu/sse.h"

namespace us::hv::kvm {
namespace {

// The order of CpuState::regs.
constexpr __u64 kvm_regs::*kGeneral[16] = {
    &kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx, &kvm_regs::rsp, &kvm_regs::rbp,
    &kvm_regs::rsi, &kvm_regs::rdi, &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
    &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};

constexpr kvm_segment kvm_sregs::*kSegments[kSegCount] = {
    &kvm_sregs::es, &kvm_sregs::cs, &kvm_sregs::ss, &kvm_sregs::ds, &kvm_sregs::fs, &kvm_sregs::gs};

// A segment that is not usable keeps nothing but its selector, and what addresses need: FS and GS
// their base, SS its DPL, which is the CPL. The rest of the hidden part is left over from before,
// and differs between processors.
Segment from_segment(const kvm_segment& in, bool keeps_base, bool keeps_dpl) {
  const auto dpl = static_cast<uint16_t>((in.dpl & 3) << 5);
  if (in.unusable != 0 || in.present == 0)
    return {.base = keeps_base ? in.base : 0,
            .limit = 0,
            .access = keeps_dpl ? dpl : uint16_t{0},
            .selector = in.selector};
  const unsigned access = (in.type & 0xfu) | (in.s & 1u) << 4 | dpl | 1u << 7 |
                          (in.avl & 1u) << 12 | (in.l & 1u) << 13 | (in.db & 1u) << 14 |
                          (in.g & 1u) << 15;
  return {.base = in.base,
          .limit = in.limit,
          .access = static_cast<uint16_t>(access),
          .selector = in.selector};
}

kvm_segment to_segment(const Segment& in) {
  kvm_segment out{};
  out.base = in.base;
  out.limit = in.limit;
  out.selector = in.selector;
  out.type = in.access & 0xf;
  out.s = in.access >> 4 & 1;
  out.dpl = in.access >> 5 & 3;
  out.present = in.access >> 7 & 1;
  out.avl = in.access >> 12 & 1;
  out.l = in.access >> 13 & 1;
  out.db = in.access >> 14 & 1;
  out.g = in.access >> 15 & 1;
  out.unusable = out.present == 0;
  return out;
}

// The standard form of an XSAVE area. SDM 1 13.4.
struct XsaveHead {
  uint16_t control, status;
  uint8_t tags, reserved1;
  uint16_t opcode;
  uint64_t ip, dp;
  uint32_t mxcsr, mxcsr_mask;
  struct {
    uint64_t mantissa;
    uint16_t exponent, pad[3];
  } registers[8];
  Xmm xmm[16];
  uint8_t unused[96];
  uint64_t components, compaction, zero[6];
};
static_assert(offsetof(XsaveHead, registers) == 32 && offsetof(XsaveHead, xmm) == 160 &&
              offsetof(XsaveHead, components) == 512 && sizeof(XsaveHead) == 576);
constexpr uint64_t kX87 = 1, kSse = 2;

struct KeptMsr {
  uint32_t index;
  uint64_t MsrState::*place;
};
constexpr KeptMsr kKept[] = {
    {0x174, &MsrState::sysenter_cs},   {0x175, &MsrState::sysenter_esp},
    {0x176, &MsrState::sysenter_eip},  {0xc000'0081, &MsrState::star},
    {0xc000'0082, &MsrState::lstar},   {0xc000'0083, &MsrState::cstar},
    {0xc000'0084, &MsrState::sfmask},  {0xc000'0102, &MsrState::kernel_gs_base},
    {0xc000'0103, &MsrState::tsc_aux},
};
constexpr size_t kKeptCount = std::size(kKept);

// Read and written through KVM_GET_SREGS.
constexpr uint32_t kInSregs[] = {0xc000'0080, 0xc000'0100, 0xc000'0101};  // EFER, FS and GS base

constexpr uint32_t kHighBase = 0xc000'0000;

}  // namespace

void from_regs(const kvm_regs& in, CpuState& out) {
  for (unsigned i = 0; i < 16; ++i) out.regs[i] = in.*kGeneral[i];
  out.rip = in.rip;
  const uint64_t flags = in.rflags & ~flag::kRf;
  set_arithmetic_flags(out, flags);
  out.rflags_other = (flags & ~flag::kArithmetic) | flag::kOne;
}

kvm_regs to_regs(const CpuState& in) {
  kvm_regs out{};
  for (unsigned i = 0; i < 16; ++i) out.*kGeneral[i] = in.regs[i];
  out.rip = in.rip;
  out.rflags = rflags(in);
  return out;
}

void from_sregs(const kvm_sregs& in, CpuState& out) {
  for (unsigned i = 0; i < kSegCount; ++i)
    out.seg[i] = from_segment(in.*kSegments[i], i == kFs || i == kGs, i == kSs);
  out.tr = from_segment(in.tr, false, false);
  out.ldtr = from_segment(in.ldt, false, false);
  out.gdtr = {.base = in.gdt.base, .limit = in.gdt.limit};
  out.idtr = {.base = in.idt.base, .limit = in.idt.limit};
  out.cr0 = in.cr0, out.cr2 = in.cr2, out.cr3 = in.cr3, out.cr4 = in.cr4, out.efer = in.efer;
  // VMX keeps the CPL in SS's descriptor; there is none before protected mode.
  out.cpl = (in.cr0 & cr0::kPe) != 0 ? in.ss.dpl & 3 : 0;
}

kvm_sregs to_sregs(const CpuState& in, const kvm_sregs& base) {
  kvm_sregs out = base;
  for (unsigned i = 0; i < kSegCount; ++i) out.*kSegments[i] = to_segment(in.seg[i]);
  out.ss.dpl = in.cpl;
  out.tr = to_segment(in.tr);
  out.ldt = to_segment(in.ldtr);
  out.gdt = {.base = in.gdtr.base, .limit = static_cast<uint16_t>(in.gdtr.limit)};
  out.idt = {.base = in.idtr.base, .limit = static_cast<uint16_t>(in.idtr.limit)};
  out.cr0 = in.cr0, out.cr2 = in.cr2, out.cr3 = in.cr3, out.cr4 = in.cr4, out.efer = in.efer;
  std::fill(std::begin(out.interrupt_bitmap), std::end(out.interrupt_bitmap), 0);
  return out;
}

void from_xsave(const XsaveArea& in, CpuState& out) {
  XsaveHead head;
  std::memcpy(&head, in.bytes, sizeof head);
  out.fpu = {};
  if ((head.components & kX87) != 0) {
    X87State& f = out.fpu;
    f.control = head.control, f.status = head.status, f.valid = head.tags;
    f.opcode = head.opcode, f.ip = head.ip, f.dp = head.dp;
    for (unsigned i = 0; i < 8; ++i) {
      auto& reg = f.reg[(f.top() + i) & 7];
      reg.mantissa = head.registers[i].mantissa;
      reg.exponent = head.registers[i].exponent;
    }
  }
  for (unsigned i = 0; i < 16; ++i)
    out.xmm[i] = (head.components & kSse) != 0 ? head.xmm[i] : Xmm{};
  out.mxcsr = head.mxcsr & kMxcsrWritable;
}

void to_xsave(const CpuState& in, XsaveArea& out) {
  XsaveHead head{};
  const X87State& f = in.fpu;
  head.control = f.control, head.status = f.status, head.tags = static_cast<uint8_t>(f.valid);
  head.opcode = f.opcode, head.ip = f.ip, head.dp = f.dp;
  for (unsigned i = 0; i < 8; ++i) {
    const auto& reg = f.reg[(f.top() + i) & 7];
    head.registers[i].mantissa = reg.mantissa;
    head.registers[i].exponent = reg.exponent;
  }
  for (unsigned i = 0; i < 16; ++i) head.xmm[i] = in.xmm[i];
  head.mxcsr = in.mxcsr;
  head.mxcsr_mask = kMxcsrWritable;
  head.components = kX87 | kSse;
  std::memset(out.bytes, 0, sizeof out.bytes);
  std::memcpy(out.bytes, &head, sizeof head);
}

std::span<const uint32_t> kept_msrs() {
  static constexpr auto kIndices = [] {
    std::array<uint32_t, kKeptCount> indices{};
    for (size_t i = 0; i < kKeptCount; ++i) indices[i] = kKept[i].index;
    return indices;
  }();
  return kIndices;
}

void from_msrs(std::span<const kvm_msr_entry> in, CpuState& out) {
  for (size_t i = 0; i < kKeptCount; ++i) out.msr.*kKept[i].place = in[i].data;
}

void to_msrs(const CpuState& in, std::span<kvm_msr_entry> out) {
  for (size_t i = 0; i < kKeptCount; ++i) {
    out[i] = {};
    out[i].index = kKept[i].index;
    out[i].data = in.msr.*kKept[i].place;
  }
}

MsrFilter::MsrFilter() {
  filter.flags = KVM_MSR_FILTER_DEFAULT_DENY;
  const auto allow = [this](uint32_t index) {
    uint8_t* const bits = index >= kHighBase ? high : low;
    const uint32_t at = index >= kHighBase ? index - kHighBase : index;
    US_CHECK(at / 8 < (index >= kHighBase ? sizeof high : sizeof low), "MSR {:#x}", index);
    bits[at / 8] = static_cast<uint8_t>(bits[at / 8] | 1u << (at % 8));
  };
  for (const KeptMsr& m : kKept) allow(m.index);
  for (const uint32_t index : kInSregs) allow(index);
  constexpr uint32_t kBoth = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
  filter.ranges[0].flags = kBoth;
  filter.ranges[0].nmsrs = sizeof low * 8;
  filter.ranges[0].base = 0;
  filter.ranges[0].bitmap = low;
  filter.ranges[1].flags = kBoth;
  filter.ranges[1].nmsrs = sizeof high * 8;
  filter.ranges[1].base = kHighBase;
  filter.ranges[1].bitmap = high;
}

bool MsrFilter::allows(uint32_t index) const {
  for (const kvm_msr_filter_range& range : filter.ranges) {
    if (range.nmsrs == 0 || index < range.base || index - range.base >= range.nmsrs) continue;
    const uint32_t at = index - range.base;
    return (range.bitmap[at / 8] >> (at % 8) & 1) != 0;
  }
  return (filter.flags & KVM_MSR_FILTER_DEFAULT_DENY) == 0;
}

}  // namespace us::hv::kvm
