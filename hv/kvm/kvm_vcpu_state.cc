// The guest's state, from KVM and back.
#include <cerrno>
#include <cstring>
#include <fmt/format.h>

#include "base/check.h"
#include "hv/cpu/flags.h"
#include "hv/cpu/mmu.h"
#include "hv/cpu/state_bytes.h"
#include "hv/cpu/system.h"
#include "hv/kvm/kvm_vcpu.h"

namespace us::hv::kvm {
namespace {

// For calls that fail only when they are made wrongly.
void must(int result, const char* call) {
  US_CHECK(result >= 0, "{}: {}", call, std::strerror(-result));
}

// kvm_vcpu_events::interrupt.shadow. SDM 3C table 25-3
constexpr uint8_t kShadowSti = KVM_X86_SHADOW_INT_STI, kShadowMovSs = KVM_X86_SHADOW_INT_MOV_SS;

constexpr uint32_t kApicBase = 0x1b;

}  // namespace

void KvmVcpu::fetch(unsigned parts) const {
  const unsigned wanted = parts & ~fresh_;
  if (wanted == 0) return;
  KvmHost& host = vm_->host();
  const int vcpu = vm_->vcpu();
  if ((wanted & kRegs) != 0) {
    kvm_regs regs;
    must(host.get_regs(vcpu, regs), "KVM_GET_REGS");
    resume_flag_ = (regs.rflags & flag::kRf) != 0;
    from_regs(regs, shadow_);
  }
  if ((wanted & kSregs) != 0) {
    must(host.get_sregs(vcpu, sregs_), "KVM_GET_SREGS");
    from_sregs(sregs_, shadow_);
  }
  if ((wanted & kEvents) != 0) {
    must(host.get_events(vcpu, events_), "KVM_GET_VCPU_EVENTS");
    shadow_.interrupt_shadow = (events_.interrupt.shadow & (kShadowSti | kShadowMovSs)) != 0;
    shadow_.nmi_blocked = events_.nmi.masked != 0;
  }
  if ((wanted & kRest) != 0) fetch_rest();
  fresh_ |= wanted;
  update_mode(shadow_);
}

void KvmVcpu::fetch_rest() const {
  KvmHost& host = vm_->host();
  const int vcpu = vm_->vcpu();
  XsaveArea area;
  must(host.get_xsave(vcpu, area), "KVM_GET_XSAVE");
  from_xsave(area, shadow_);
  kvm_msr_entry entries[16] = {};
  const auto indices = kept_msrs();
  US_CHECK(indices.size() <= std::size(entries));
  for (size_t i = 0; i < indices.size(); ++i) entries[i].index = indices[i];
  const int read = host.get_msrs(vcpu, {entries, indices.size()});
  US_CHECK(read == static_cast<int>(indices.size()), "KVM_GET_MSRS: {}", read);
  from_msrs({entries, indices.size()}, shadow_);
  kvm_debugregs debug;
  must(host.get_debug_registers(vcpu, debug), "KVM_GET_DEBUGREGS");
  for (unsigned i = 0; i < 4; ++i) shadow_.dr[i] = debug.db[i];
  shadow_.dr6 = debug.dr6, shadow_.dr7 = debug.dr7;
  kvm_xcrs xcrs;
  must(host.get_xcrs(vcpu, xcrs), "KVM_GET_XCRS");
  for (unsigned i = 0; i < xcrs.nr_xcrs; ++i)
    if (xcrs.xcrs[i].xcr == 0) shadow_.xcr0 = xcrs.xcrs[i].value;
}

// KVM has no call of all kernels for the four entries that MOV CR3 loads in PAE paging; memory
// holds them as long as the guest does not change them under itself.
void KvmVcpu::load_pdpte() const {
  constexpr uint64_t kTable = 0xffff'ffe0;
  const bool pae = (shadow_.cr0 & cr0::kPg) != 0 && (shadow_.cr4 & cr4::kPae) != 0 &&
                   (shadow_.efer & efer::kLma) == 0;
  for (unsigned i = 0; i < 4; ++i) {
    shadow_.pdpte[i] = 0;
    if (!pae) continue;
    auto* out = reinterpret_cast<uint8_t*>(&shadow_.pdpte[i]);
    memory_.read(GuestPhys((shadow_.cr3 & kTable) + 8 * i), {out, 8});
  }
}

void KvmVcpu::store(unsigned parts) {
  KvmHost& host = vm_->host();
  const int vcpu = vm_->vcpu();
  if ((parts & kSregs) != 0) {
    sregs_ = to_sregs(shadow_, sregs_);
    must(host.set_sregs(vcpu, sregs_), "KVM_SET_SREGS");
  }
  if ((parts & kRegs) != 0) {
    must(host.set_regs(vcpu, to_regs(shadow_)), "KVM_SET_REGS");
    resume_armed_ = false;
    step_holds_ = false;
  }
  if ((parts & kRest) != 0) store_rest();
  if ((parts & kEvents) != 0) store_events();
  fresh_ |= parts;
}

void KvmVcpu::store_rest() {
  KvmHost& host = vm_->host();
  const int vcpu = vm_->vcpu();
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = shadow_.xcr0;
  must(host.set_xcrs(vcpu, xcrs), "KVM_SET_XCRS");
  XsaveArea area;
  to_xsave(shadow_, area);
  must(host.set_xsave(vcpu, area), "KVM_SET_XSAVE");
  kvm_msr_entry entries[16] = {};
  const size_t count = kept_msrs().size();
  to_msrs(shadow_, {entries, count});
  const int written = host.set_msrs(vcpu, {entries, count});
  US_CHECK(written == static_cast<int>(count), "KVM_SET_MSRS: {}", written);
  kvm_debugregs debug{};
  for (unsigned i = 0; i < 4; ++i) debug.db[i] = shadow_.dr[i];
  debug.dr6 = shadow_.dr6, debug.dr7 = shadow_.dr7;
  must(host.set_debug_registers(vcpu, debug), "KVM_SET_DEBUGREGS");
}

// Nothing in flight: what there was has been delivered.
void KvmVcpu::store_events() {
  kvm_vcpu_events events{};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  events.interrupt.shadow = shadow_.interrupt_shadow ? kShadowSti : 0;
  events.nmi.masked = shadow_.nmi_blocked;
  must(vm_->host().set_events(vm_->vcpu(), events), "KVM_SET_VCPU_EVENTS");
  events_ = events;
}

// CPUID's APIC bit follows it, by KVM's hand.
void KvmVcpu::sync_apic_base() {
  uint64_t base = 0;
  if (!apic_base_stale_ || !bus_.msr_read(kApicBase, base)) return;
  apic_base_stale_ = false;
  fetch(kSregs);
  sregs_.apic_base = base;
  must(vm_->host().set_sregs(vm_->vcpu(), sregs_), "KVM_SET_SREGS");
}

// Lets the software processor's code work on the guest's registers and memory.
void KvmVcpu::deliver(const std::function<void(Cpu&)>& how) {
  fetch(kCore);
  const uint64_t from = trace_place();
  flush_tlb_all(shadow_);  // it knows nothing of what the guest did since
  shadow_.halted = halted_;
  shadow_.shutdown = false;
  how(shadow_);
  halted_ = shadow_.halted;
  shutdown_ = shutdown_ || shadow_.shutdown;
  ++statistics_.software_delivered;
  store(kCore);
  trace_delivery(from);
}

bool KvmVcpu::event_in_flight() const {
  return events_.exception.injected != 0 || events_.exception.pending != 0 ||
         events_.interrupt.injected != 0 || events_.nmi.injected != 0 || events_.nmi.pending != 0;
}

// An exception that a signal caught between its being raised and its being delivered. KVM would go
// on with it; but whoever looks at the guest now must not find it halfway. Software interrupts are
// not shown by KVM: there the guest stands before the instruction, which is as good.
void KvmVcpu::finish_events() {
  ++statistics_.finished_events;
  const kvm_vcpu_events events = events_;
  deliver([&events](Cpu& c) {
    if (events.exception.injected != 0 || events.exception.pending != 0) {
      const Fault fault{.vector = events.exception.nr,
                        .has_error = events.exception.has_error_code != 0,
                        .software = false,
                        .error = events.exception.error_code};
      us::hv::deliver(c, fault, c.rip);
    } else if (events.nmi.injected != 0 || events.nmi.pending != 0) {
      deliver_external(c, kNmiVector);
    } else {
      deliver_external(c, events.interrupt.nr);
    }
  });
}

ExecutionPoint KvmVcpu::point() const {
  fetch(kRegs);
  return {branches(), shadow_.rip, shadow_.regs[kRcx], Instructions(0)};
}

Registers KvmVcpu::registers() const {
  fetch(kRegs | kSregs);
  const Cpu& c = shadow_;
  Registers r;
  for (unsigned i = 0; i < 16; ++i) r.gpr[i] = c.regs[i];
  r.rip = c.rip;
  r.rflags = rflags(c);
  r.cr0 = c.cr0, r.cr2 = c.cr2, r.cr3 = c.cr3, r.cr4 = c.cr4, r.efer = c.efer;
  r.cs = c.seg[kCs].selector, r.ss = c.seg[kSs].selector, r.ds = c.seg[kDs].selector;
  r.es = c.seg[kEs].selector, r.fs = c.seg[kFs].selector, r.gs = c.seg[kGs].selector;
  r.fs_base = c.seg[kFs].base, r.gs_base = c.seg[kGs].base;
  return r;
}

void KvmVcpu::set_registers(const Registers& r) {
  fetch(kCore);
  for (unsigned i = 0; i < 16; ++i) shadow_.regs[i] = r.gpr[i];
  shadow_.rip = r.rip;
  set_arithmetic_flags(shadow_, r.rflags);
  shadow_.rflags_other = (r.rflags & ~flag::kArithmetic) | flag::kOne;
  store(kRegs | kEvents);
}

void KvmVcpu::digest_state(ByteWriter& out) const {
  fetch(kAll);
  load_pdpte();
  shadow_.branches = branches().value;
  shadow_.instructions = 0;
  shadow_.halted = halted_;
  shadow_.shutdown = shutdown_;
  shadow_.nmi_pending = nmi_pending_;
  put_state(shadow_, out);
}

Status KvmVcpu::load(ByteReader& in) {
  if (Status s = get_state(shadow_, in); !s.ok()) return s;
  halted_ = shadow_.halted;
  shutdown_ = shadow_.shutdown;
  nmi_pending_ = shadow_.nmi_pending;
  shadow_.trap_hold = TrapHold::kNone;
  shadow_.debug_hits = 0;
  update_mode(shadow_);
  store(kAll);
  apic_base_stale_ = true;
  access_pending_ = attention_ = false;
  armed_for_.reset();
  set_branches(Branches(shadow_.branches));
  return Done{};
}

std::string KvmVcpu::dump() const {
  const Registers r = registers();
  static constexpr const char* kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  std::string out = fmt::format("vcpu (kvm) at conditional branch {}\n", branches().value);
  for (unsigned i = 0; i < 16; ++i)
    out += fmt::format("{:<3} {:016x}{}", kNames[i], r.gpr[i], i % 4 == 3 ? "\n" : "  ");
  out += fmt::format("rip {:016x}  rflags {:08x}  cpl {}{}{}\n", r.rip, r.rflags, shadow_.cpl,
                     halted_ ? " halted" : "", shutdown_ ? " shutdown" : "");
  out += fmt::format("cr0 {:08x}  cr2 {:016x}  cr3 {:016x}  cr4 {:08x}  efer {:x}\n", r.cr0, r.cr2,
                     r.cr3, r.cr4, r.efer);
  out += fmt::format("cs {:04x}  ss {:04x}  ds {:04x}  es {:04x}  fs {:04x}  gs {:04x}\n", r.cs,
                     r.ss, r.ds, r.es, r.fs, r.gs);
  const kvm_run& page = vm_->page();
  out += fmt::format(
      "last exit {}; runs {}, interrupted {}, steps {}, accesses {}, events "
      "finished {}, delivered {}\n",
      page.exit_reason, statistics_.runs, statistics_.interrupted, statistics_.steps,
      statistics_.accesses, statistics_.finished_events, statistics_.software_delivered);
  return out;
}

}  // namespace us::hv::kvm
