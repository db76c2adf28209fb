// What the backend tells KVM, and reads from it: CPUID, state, MSR filter, ioctl numbers.
#include <cstring>
#include <doctest/doctest.h>

#include "hv/cpu/state_bytes.h"
#include "hv/kvm/flexible_ioctls.h"
#include "hv/kvm/host_rows.h"
#include "tests/unit/kvm/rig.h"

namespace us::hv::kvm::test {
namespace {

Bytes bytes_of(const CpuState& state) {
  ByteWriter out;
  put_state(state, out);
  return out.take();
}

// A state in which every field that KVM carries differs from its default.
CpuState busy_state() {
  CpuState s;
  for (unsigned i = 0; i < 16; ++i) s.regs[i] = 0x0101'0101'0101'0101u * (i + 1);
  s.rip = 0x10'1234;
  s.rflags_other = flag::kOne | flag::kIf | flag::kDf | flag::kId;
  s.cr0 = 0x8005'0033, s.cr2 = 0xdead'beef'000, s.cr3 = 0x9000, s.cr4 = 0x6a0, s.efer = 0xd01;
  s.seg[kCs] = {.base = 0, .limit = 0xffff'ffff, .access = 0xa09b, .selector = 0x10};
  for (const Seg seg : {kEs, kSs, kDs})
    s.seg[seg] = {.base = 0, .limit = 0xffff'ffff, .access = 0xc093, .selector = 0x18};
  s.seg[kFs] = {.base = 0x7f00'1000, .limit = 0xffff'ffff, .access = 0xc093, .selector = 0x18};
  s.seg[kGs] = {.base = 0xffff'8000'0000'1000, .limit = 0, .access = 0, .selector = 0};
  s.tr = {.base = 0x5000, .limit = 0x67, .access = 0x8b, .selector = 0x20};
  s.ldtr = {.base = 0, .limit = 0, .access = 0, .selector = 0};
  s.gdtr = {.base = 0x6000, .limit = 0x7f};
  s.idtr = {.base = 0x7000, .limit = 0xfff};
  for (unsigned i = 0; i < 16; ++i) s.xmm[i].q[0] = i + 1, s.xmm[i].q[1] = ~uint64_t{i};
  s.mxcsr = 0x1fa0;
  s.fpu.control = 0x27f, s.fpu.status = 5 << 11 | 1, s.fpu.valid = 0xe0;
  for (unsigned i = 0; i < 8; ++i) {
    s.fpu.reg[i].mantissa = uint64_t{1} << 63 | i;
    s.fpu.reg[i].exponent = static_cast<uint16_t>(0x3fff + i);
  }
  s.msr.star = 0x18'0008ull << 32, s.msr.lstar = 0xffff'8000'0010'0000, s.msr.cstar = 4;
  s.msr.sfmask = 0x300, s.msr.kernel_gs_base = 0xffff'8000'0000'2000, s.msr.tsc_aux = 7;
  s.msr.sysenter_cs = 8, s.msr.sysenter_esp = 9, s.msr.sysenter_eip = 10;
  s.msr.misc_enable = 1, s.msr.mtrr_base[2] = 0xc000'0006, s.msr.spec_ctrl = 1;
  s.dr[0] = 0x1000, s.dr6 = 0xffff'0ff1, s.dr7 = 0x401;
  s.branches = 77;
  s.nmi_blocked = true;
  return s;
}

TEST_CASE("a state loaded into the vCPU is the one it saves, whatever KVM keeps of it") {
  Rig rig({.kvm = {.time_exits = true}});
  const Bytes before = bytes_of(busy_state());
  ByteReader in(before);
  REQUIRE(rig.machine->vcpu().load(in).ok());
  ByteWriter after;
  rig.machine->vcpu().save(after);
  CHECK(after.bytes() == before);
  CHECK(rig.machine->point().branches == Branches(77));
}

TEST_CASE("damaged state bytes are refused") {
  Rig rig({.kvm = {.time_exits = true}});
  Bytes bytes = bytes_of(busy_state());
  bytes.resize(bytes.size() - 1);
  ByteReader in(bytes);
  const Status loaded = rig.machine->vcpu().load(in);
  REQUIRE(!loaded.ok());
  CHECK(loaded.error().id == "SNAP-010");
}

TEST_CASE("KVM answers CPUID from our table as the software processor does") {
  TextWorld world;
  auto soft = soft_machine(world);
  const Cpu& cpu = static_cast<SoftVcpu&>(soft->vcpu()).cpu();
  const auto table = cpuid_table(cpu, true);
  CHECK(table.size() < 80);
  for (uint32_t base : {0u, 0x8000'0000u, 0x4000'0000u}) {
    for (uint32_t leaf = base; leaf < base + 0x30; ++leaf) {
      // Past its range KVM, unlike us, answers with the highest basic leaf.
      if (leaf > 0x4000'0000 && leaf < 0x8000'0000) continue;
      for (uint32_t subleaf = 0; subleaf < 8; ++subleaf) {
        uint32_t ours[4], theirs[4];
        cpuid(cpu, leaf, subleaf, ours);
        cpuid_by_table(table, leaf, subleaf, theirs);
        CAPTURE(leaf);
        CAPTURE(subleaf);
        for (unsigned i = 0; i < 4; ++i) CHECK(ours[i] == theirs[i]);
      }
    }
  }
}

TEST_CASE("a table for cooperative guests has no time stamp counter") {
  TextWorld world;
  auto soft = soft_machine(world);
  const auto table = cpuid_table(static_cast<SoftVcpu&>(soft->vcpu()).cpu(), false);
  uint32_t out[4];
  cpuid_by_table(table, 1, 0, out);
  CHECK((out[3] >> 4 & 1) == 0);
  CHECK((out[2] >> 24 & 1) == 0);
  cpuid_by_table(table, 0x8000'0001, 0, out);
  CHECK((out[3] >> 27 & 1) == 0);
}

TEST_CASE("features that a host lacks are named, those that userspace provides are not asked for") {
  auto host = guest_cpuid();
  CHECK(missing_features(guest_cpuid(), host).empty());
  for (kvm_cpuid_entry2& e : host)
    if (e.function == 1) e.ecx &= ~(1u << 20 | 1u << 21 | 1u << 24);  // SSE4.2, x2APIC, deadline
  CHECK(missing_features(guest_cpuid(), host) == std::vector<std::string>{"CPUID.1H:ECX bit 20"});
}

TEST_CASE("the MSR filter lets the guest at what KVM keeps for it, and at nothing else") {
  const MsrFilter filter;
  for (const uint32_t index : kept_msrs()) CHECK(filter.allows(index));
  for (const uint32_t index : {0xc000'0080u, 0xc000'0100u, 0xc000'0101u})
    CHECK(filter.allows(index));
  // TSC, APIC base, PMU, DEBUGCTL, PAT, TSC deadline, XSS, and the ends of the bitmaps.
  for (const uint32_t index : {0u, 0x10u, 0x1bu, 0xc1u, 0x186u, 0x1d9u, 0x277u, 0x38fu, 0x6e0u,
                               0xda0u, 0x173u, 0x177u, 0xc000'0085u, 0xc000'0104u, 0xc000'ffffu})
    CHECK_FALSE(filter.allows(index));
}

TEST_CASE("the trap: C++ takes other sizes than C for what ends in a flexible array") {
  // If this fails the header has been mended, and flexible_ioctls.h could go.
  CHECK(sizeof(kvm_cpuid2) != US_KVM_CPUID_HEADER);
  CHECK((US_KVM_SET_CPUID2 & 0xff) == 0x90);
}

}  // namespace
}  // namespace us::hv::kvm::test
